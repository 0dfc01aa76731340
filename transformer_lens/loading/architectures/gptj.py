"""GPT-J: one norm for both branches, side by side; adjacent dimensions rotate; logits have a bias."""

from typing import Any

from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Take


def _read(config: ConfigView) -> dict[str, Any]:
    d_model = config.size("n_embd", 4096)
    n_heads = config.size("n_head", 16)
    d_head = config.parts("n_embd", d_model, "n_head", n_heads)
    rotary_dim = config.size_or_none("rotary_dim", 64) or d_head
    if rotary_dim > d_head or rotary_dim % 2:
        raise config.corrupt(f"rotary_dim = {rotary_dim}: of {d_head} dimensions that many cannot rotate in pairs")
    return {
        "d_model": d_model,
        "n_heads": n_heads,
        "d_head": d_head,
        "d_mlp": config.size("n_inner", 4 * d_model),
        "n_layers": config.size("n_layer", 28, "layers"),
        "n_ctx": config.size("n_positions", 2048, "tokens"),
        "d_vocab": config.size("vocab_size", 50400),
        "act_fn": config.activation("activation_function", "gelu_new"),
        "eps": config.number("layer_norm_epsilon", 1e-5, above=0),
        "parallel_attn_mlp": True,
        "normalization_type": "LN",
        "positional_embedding_type": "rotary",
        "rotary_dim": rotary_dim,
        "rotary_adjacent_pairs": True,
    }


def _projection(name: str, heads: str) -> Take:
    return Take(f"{{p}}h.{{i}}.attn.{name}_proj.weight", f"({heads} d_head) d_model")


GPTJ = Architecture(
    name="GPTJForCausalLM",
    model_type="gptj",
    prefix="transformer.",
    anchor="wte.weight",
    layer="{p}h.{i}.",
    once={
        "embed.W_E": Take("{p}wte.weight", "d_vocab d_model"),
        "ln_final.w": Take("{p}ln_f.weight", "d_model"),
        "ln_final.b": Take("{p}ln_f.bias", "d_model"),
        "unembed.W_U": Take("lm_head.weight", "d_vocab_out d_model", tied_to="{p}wte.weight"),
        "unembed.b_U": Take("lm_head.bias", "d_vocab_out"),
    },
    block={
        "ln1.w": Take("{p}h.{i}.ln_1.weight", "d_model"),
        "ln1.b": Take("{p}h.{i}.ln_1.bias", "d_model"),
        # Upstream has a norm for each branch: both read the file's one.
        "ln2.w": Take("{p}h.{i}.ln_1.weight", "d_model"),
        "ln2.b": Take("{p}h.{i}.ln_1.bias", "d_model"),
        "attn.W_Q": _projection("q", "head"),
        "attn.W_K": _projection("k", "kv_head"),
        "attn.W_V": _projection("v", "kv_head"),
        "attn.W_O": Take("{p}h.{i}.attn.out_proj.weight", "d_model (head d_head)"),
        "mlp.W_in": Take("{p}h.{i}.mlp.fc_in.weight", "d_mlp d_model"),
        "mlp.b_in": Take("{p}h.{i}.mlp.fc_in.bias", "d_mlp"),
        "mlp.W_out": Take("{p}h.{i}.mlp.fc_out.weight", "d_model d_mlp"),
        "mlp.b_out": Take("{p}h.{i}.mlp.fc_out.bias", "d_model"),
    },
    dropped={
        "{p}h.{i}.attn.bias": "a causal mask, computed here",
        "{p}h.{i}.attn.masked_bias": "the number that stood for minus infinity",
        "{p}h.{i}.attn.embed_positions": "a rotary table, computed here",
    },
    read_config=_read,
    ignored={
        "rotary": "positions rotate in every file of the class",
        "scale_attn_weights": "transformers divides the scores of this class whatever it says",
        "summary_type": "a head that is not loaded",
        "summary_use_proj": "a head that is not loaded",
        "summary_activation": "a head that is not loaded",
        "summary_proj_to_labels": "a head that is not loaded",
        "summary_first_dropout": "a head that is not loaded",
    },
)
