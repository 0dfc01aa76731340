"""GPT-Neo (TinyStories): scores that are not divided, a window on every other layer."""

from typing import Any

from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Take


def _attention_types(config: ConfigView, n_layers: int) -> list[str]:
    """Returns "global" or "local" for each layer, of ``[[pattern], repeats]`` pairs."""
    pairs = config.take("attention_types", [[["global", "local"], max(n_layers // 2, 1)]])
    out: list[str] = []
    if not isinstance(pairs, (list, tuple)):
        raise config.corrupt(f"attention_types = {str(pairs)[:60]} is not a list")
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not isinstance(pair[0], (list, tuple)):
            raise config.corrupt(f"attention_types holds {str(pair)[:60]}, which is not a pattern and its repeats")
        repeats = config.check_size("attention_types", pair[1], 100_000)
        if len(out) + repeats * len(pair[0]) > n_layers:
            break
        out += [str(kind) for kind in pair[0]] * repeats
    if len(out) != n_layers or set(out) - {"global", "local"}:
        raise config.corrupt(f"attention_types does not say global or local for each of {n_layers} layers")
    expanded = config.take("attention_layers", out)
    if not isinstance(expanded, (list, tuple)) or list(expanded) != out:
        config.problems.append("attention_layers and attention_types say different things: which one?")
    return out


def _read(config: ConfigView) -> dict[str, Any]:
    d_model = config.size("hidden_size", 2048)
    n_heads = config.size("num_heads", 16)
    n_layers = config.size("num_layers", 24, "layers")
    return {
        "d_model": d_model,
        "n_heads": n_heads,
        "d_head": config.parts("hidden_size", d_model, "num_heads", n_heads),
        "d_mlp": config.size("intermediate_size", 4 * d_model),
        "n_layers": n_layers,
        "n_ctx": config.size("max_position_embeddings", 2048, "tokens"),
        "d_vocab": config.size("vocab_size", 50257),
        "act_fn": config.activation("activation_function", "gelu_new"),
        "eps": config.number("layer_norm_epsilon", 1e-5, above=0),
        "use_attn_scale": False,
        "use_local_attn": True,
        "window_size": config.size("window_size", 256, "tokens"),
        "attn_types": _attention_types(config, n_layers),
        "normalization_type": "LN",
        "positional_embedding_type": "standard",
    }


def _projection(name: str, heads: str) -> Take:
    return Take(f"{{p}}h.{{i}}.attn.attention.{name}_proj.weight", f"({heads} d_head) d_model")


GPT_NEO = Architecture(
    name="GPTNeoForCausalLM",
    model_type="gpt_neo",
    prefix="transformer.",
    anchor="wte.weight",
    layer="{p}h.{i}.",
    once={
        "embed.W_E": Take("{p}wte.weight", "d_vocab d_model"),
        "pos_embed.W_pos": Take("{p}wpe.weight", "n_ctx d_model"),
        "ln_final.w": Take("{p}ln_f.weight", "d_model"),
        "ln_final.b": Take("{p}ln_f.bias", "d_model"),
        "unembed.W_U": Take("lm_head.weight", "d_vocab_out d_model", tied_to="{p}wte.weight"),
    },
    block={
        "ln1.w": Take("{p}h.{i}.ln_1.weight", "d_model"),
        "ln1.b": Take("{p}h.{i}.ln_1.bias", "d_model"),
        "attn.W_Q": _projection("q", "head"),
        "attn.W_K": _projection("k", "kv_head"),
        "attn.W_V": _projection("v", "kv_head"),
        "attn.W_O": Take("{p}h.{i}.attn.attention.out_proj.weight", "d_model (head d_head)"),
        "attn.b_O": Take("{p}h.{i}.attn.attention.out_proj.bias", "d_model"),
        "ln2.w": Take("{p}h.{i}.ln_2.weight", "d_model"),
        "ln2.b": Take("{p}h.{i}.ln_2.bias", "d_model"),
        "mlp.W_in": Take("{p}h.{i}.mlp.c_fc.weight", "d_mlp d_model"),
        "mlp.b_in": Take("{p}h.{i}.mlp.c_fc.bias", "d_mlp"),
        "mlp.W_out": Take("{p}h.{i}.mlp.c_proj.weight", "d_model d_mlp"),
        "mlp.b_out": Take("{p}h.{i}.mlp.c_proj.bias", "d_model"),
    },
    dropped={
        "{p}h.{i}.attn.attention.bias": "a causal mask, computed here",
        "{p}h.{i}.attn.attention.masked_bias": "the number that stood for minus infinity",
    },
    read_config=_read,
    ignored={
        "summary_type": "a head that is not loaded",
        "summary_use_proj": "a head that is not loaded",
        "summary_activation": "a head that is not loaded",
        "summary_proj_to_labels": "a head that is not loaded",
        "summary_first_dropout": "a head that is not loaded",
    },
    ties_by_default=True,
)
