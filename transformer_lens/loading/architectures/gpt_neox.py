"""GPT-NeoX (Pythia): queries, keys and values interleaved by head, partial rotation, parallel or serial blocks."""

from typing import Any

from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Take, When

_BIASED = When("attention_bias", True)

# The axis of ours that heads are on: of queries, of keys, of values.
_HEADS = ("head", "kv_head", "kv_head")


def _read(config: ConfigView) -> dict[str, Any]:
    d_model = config.size("hidden_size", 6144)
    n_heads = config.size("num_attention_heads", 64)
    d_head = config.parts("hidden_size", d_model, "num_attention_heads", n_heads)
    n_ctx = config.size("max_position_embeddings", 2048, "tokens")
    config.flag("attention_bias", True)
    return {
        "d_model": d_model,
        "n_heads": n_heads,
        "d_head": d_head,
        "d_mlp": config.size("intermediate_size", 24576),
        "n_layers": config.size("num_hidden_layers", 44, "layers"),
        "n_ctx": n_ctx,
        "d_vocab": config.size("vocab_size", 50432),
        "act_fn": config.activation("hidden_act", "gelu"),
        "eps": config.number("layer_norm_eps", 1e-5, above=0),
        "parallel_attn_mlp": config.flag("use_parallel_residual", True),
        "normalization_type": "LN",
        **config.rotary(
            d_head,
            n_ctx,
            theta_names=("rotary_emb_base", "rope_theta"),
            fraction_names=("rotary_pct", "partial_rotary_factor"),
            default_fraction=0.25,
        ),
    }


def _fused(place: int) -> Take:
    return Take(
        "{p}layers.{i}.attention.query_key_value.weight", f"({_HEADS[place]} qkv d_head) d_model", pick={"qkv": place}
    )


def _fused_bias(place: int) -> Take:
    key = "{p}layers.{i}.attention.query_key_value.bias"
    return Take(key, f"({_HEADS[place]} qkv d_head)", pick={"qkv": place}, when=_BIASED)


GPT_NEOX = Architecture(
    name="GPTNeoXForCausalLM",
    model_type="gpt_neox",
    prefix="gpt_neox.",
    anchor="embed_in.weight",
    layer="{p}layers.{i}.",
    once={
        "embed.W_E": Take("{p}embed_in.weight", "d_vocab d_model"),
        "ln_final.w": Take("{p}final_layer_norm.weight", "d_model"),
        "ln_final.b": Take("{p}final_layer_norm.bias", "d_model"),
        "unembed.W_U": Take(
            ("embed_out.weight", "lm_head.weight"), "d_vocab_out d_model", tied_to="{p}embed_in.weight"
        ),
    },
    block={
        "ln1.w": Take("{p}layers.{i}.input_layernorm.weight", "d_model"),
        "ln1.b": Take("{p}layers.{i}.input_layernorm.bias", "d_model"),
        "ln2.w": Take("{p}layers.{i}.post_attention_layernorm.weight", "d_model"),
        "ln2.b": Take("{p}layers.{i}.post_attention_layernorm.bias", "d_model"),
        "attn.W_Q": _fused(0),
        "attn.W_K": _fused(1),
        "attn.W_V": _fused(2),
        "attn.b_Q": _fused_bias(0),
        "attn.b_K": _fused_bias(1),
        "attn.b_V": _fused_bias(2),
        "attn.W_O": Take("{p}layers.{i}.attention.dense.weight", "d_model (head d_head)"),
        "attn.b_O": Take("{p}layers.{i}.attention.dense.bias", "d_model", when=_BIASED),
        "mlp.W_in": Take("{p}layers.{i}.mlp.dense_h_to_4h.weight", "d_mlp d_model"),
        "mlp.b_in": Take("{p}layers.{i}.mlp.dense_h_to_4h.bias", "d_mlp"),
        "mlp.W_out": Take("{p}layers.{i}.mlp.dense_4h_to_h.weight", "d_model d_mlp"),
        "mlp.b_out": Take("{p}layers.{i}.mlp.dense_4h_to_h.bias", "d_model"),
    },
    dropped={
        "{p}layers.{i}.attention.bias": "a causal mask, computed here",
        "{p}layers.{i}.attention.masked_bias": "the number that stood for minus infinity",
        "{p}layers.{i}.attention.rotary_emb.inv_freq": "rotary frequencies, computed here",
    },
    read_config=_read,
)
