"""GPT-2: transposed matrices (Conv1D), queries, keys and values side by side."""

from typing import Any

from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Take

# The axis of ours that heads are on: of queries, of keys, of values.
_HEADS = ("head", "kv_head", "kv_head")


def _read(config: ConfigView) -> dict[str, Any]:
    d_model = config.size("n_embd", 768)
    n_heads = config.size("n_head", 12)
    return {
        "d_model": d_model,
        "n_heads": n_heads,
        "d_head": config.parts("n_embd", d_model, "n_head", n_heads),
        "d_mlp": config.size("n_inner", 4 * d_model),
        "n_layers": config.size("n_layer", 12, "layers"),
        "n_ctx": config.size("n_positions", 1024, "tokens"),
        "d_vocab": config.size("vocab_size", 50257),
        "act_fn": config.activation("activation_function", "gelu_new"),
        "eps": config.number("layer_norm_epsilon", 1e-5, above=0),
        "use_attn_scale": config.flag("scale_attn_weights", True),
        "scale_attn_by_inverse_layer_idx": config.flag("scale_attn_by_inverse_layer_idx", False),
        "normalization_type": "LN",
        "positional_embedding_type": "standard",
    }


def _fused(place: int) -> Take:
    return Take("{p}h.{i}.attn.c_attn.weight", f"d_model (qkv {_HEADS[place]} d_head)", pick={"qkv": place})


def _fused_bias(place: int) -> Take:
    return Take("{p}h.{i}.attn.c_attn.bias", f"(qkv {_HEADS[place]} d_head)", pick={"qkv": place})


GPT2 = Architecture(
    name="GPT2LMHeadModel",
    model_type="gpt2",
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
        "attn.W_Q": _fused(0),
        "attn.W_K": _fused(1),
        "attn.W_V": _fused(2),
        "attn.b_Q": _fused_bias(0),
        "attn.b_K": _fused_bias(1),
        "attn.b_V": _fused_bias(2),
        "attn.W_O": Take("{p}h.{i}.attn.c_proj.weight", "(head d_head) d_model"),
        "attn.b_O": Take("{p}h.{i}.attn.c_proj.bias", "d_model"),
        "ln2.w": Take("{p}h.{i}.ln_2.weight", "d_model"),
        "ln2.b": Take("{p}h.{i}.ln_2.bias", "d_model"),
        "mlp.W_in": Take("{p}h.{i}.mlp.c_fc.weight", "d_model d_mlp"),
        "mlp.b_in": Take("{p}h.{i}.mlp.c_fc.bias", "d_mlp"),
        "mlp.W_out": Take("{p}h.{i}.mlp.c_proj.weight", "d_mlp d_model"),
        "mlp.b_out": Take("{p}h.{i}.mlp.c_proj.bias", "d_model"),
    },
    dropped={
        "{p}h.{i}.attn.bias": "a causal mask, computed here",
        "{p}h.{i}.attn.masked_bias": "the number that stood for minus infinity",
    },
    read_config=_read,
    ignored={
        "n_ctx": "the name that n_positions had; transformers does not read it",
        "n_special": "a count of tokens that GPT-1 had",
        "predict_special_tokens": "the same",
        "output_past": "the name that use_cache had",
        "reorder_and_upcast_attn": "changes the order of rounding only",
        "summary_type": "a head that is not loaded",
        "summary_use_proj": "a head that is not loaded",
        "summary_activation": "a head that is not loaded",
        "summary_proj_to_labels": "a head that is not loaded",
        "summary_first_dropout": "a head that is not loaded",
    },
    transposed=True,
    ties_by_default=True,
)
