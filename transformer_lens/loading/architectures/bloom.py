"""BLOOM: a norm behind the embedding, ALiBi instead of positions."""

from typing import Any

from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Take, Zeros

# The axis of ours that heads are on: of queries, of keys, of values.
_HEADS = ("head", "kv_head", "kv_head")


def _read(config: ConfigView) -> dict[str, Any]:
    width, heads = config.spelling("hidden_size", "n_embed"), config.spelling("n_head", "num_attention_heads")
    d_model = config.size(width, 64)
    n_heads = config.size(heads, 8)
    return {
        "d_model": d_model,
        "n_heads": n_heads,
        "d_head": config.parts(width, d_model, heads, n_heads),
        "d_mlp": 4 * d_model,
        "n_layers": config.size(config.spelling("n_layer", "num_hidden_layers"), 2, "layers"),
        # Length has no bound that a table sets: files say what they were trained at, if anything.
        "n_ctx": config.size("seq_length", 2048, "tokens"),
        "d_vocab": config.size("vocab_size", 250880),
        "act_fn": "gelu_new",
        "eps": config.number("layer_norm_epsilon", 1e-5, above=0),
        "post_embedding_ln": True,
        "normalization_type": "LN",
        "positional_embedding_type": "alibi",
        "default_prepend_bos": False,
    }


def _fused(place: int) -> Take:
    key = "{p}h.{i}.self_attention.query_key_value.weight"
    return Take(key, f"({_HEADS[place]} qkv d_head) d_model", pick={"qkv": place})


def _fused_bias(place: int) -> Take:
    key = "{p}h.{i}.self_attention.query_key_value.bias"
    return Take(key, f"({_HEADS[place]} qkv d_head)", pick={"qkv": place})


BLOOM = Architecture(
    name="BloomForCausalLM",
    model_type="bloom",
    prefix="transformer.",
    anchor="word_embeddings.weight",
    layer="{p}h.{i}.",
    once={
        "embed.W_E": Take("{p}word_embeddings.weight", "d_vocab d_model"),
        "embed.ln.w": Take("{p}word_embeddings_layernorm.weight", "d_model"),
        "embed.ln.b": Take("{p}word_embeddings_layernorm.bias", "d_model"),
        # Upstream's model has the table and does not use it.
        "pos_embed.W_pos": Zeros(),
        "ln_final.w": Take("{p}ln_f.weight", "d_model"),
        "ln_final.b": Take("{p}ln_f.bias", "d_model"),
        "unembed.W_U": Take("lm_head.weight", "d_vocab_out d_model", tied_to="{p}word_embeddings.weight"),
    },
    block={
        "ln1.w": Take("{p}h.{i}.input_layernorm.weight", "d_model"),
        "ln1.b": Take("{p}h.{i}.input_layernorm.bias", "d_model"),
        "attn.W_Q": _fused(0),
        "attn.W_K": _fused(1),
        "attn.W_V": _fused(2),
        "attn.b_Q": _fused_bias(0),
        "attn.b_K": _fused_bias(1),
        "attn.b_V": _fused_bias(2),
        "attn.W_O": Take("{p}h.{i}.self_attention.dense.weight", "d_model (head d_head)"),
        "attn.b_O": Take("{p}h.{i}.self_attention.dense.bias", "d_model"),
        "ln2.w": Take("{p}h.{i}.post_attention_layernorm.weight", "d_model"),
        "ln2.b": Take("{p}h.{i}.post_attention_layernorm.bias", "d_model"),
        "mlp.W_in": Take("{p}h.{i}.mlp.dense_h_to_4h.weight", "d_mlp d_model"),
        "mlp.b_in": Take("{p}h.{i}.mlp.dense_h_to_4h.bias", "d_mlp"),
        "mlp.W_out": Take("{p}h.{i}.mlp.dense_4h_to_h.weight", "d_model d_mlp"),
        "mlp.b_out": Take("{p}h.{i}.mlp.dense_4h_to_h.bias", "d_model"),
    },
    read_config=_read,
    ignored={
        "slow_but_exact": "sums of a model cut into parts, in another order",
        "attention_softmax_in_fp32": "as transformers computes it always",
        "bias_dropout_fusion": "how training fused kernels",
        "masked_softmax_fusion": "how training fused kernels",
        "offset_alibi": "a leftover of training; transformers does not read it",
        "skip_bias_add": "how training fused kernels",
        "skip_bias_add_qkv": "how training fused kernels",
    },
    required={"apply_residual_connection_post_layernorm": False},
    ties_by_default=True,
)
