"""OLMo 1: Llama with LayerNorms that have no parameters, and clipped queries, keys and values."""

from typing import Any

from transformer_lens.loading.architectures import llama_like
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import When

DEFAULTS = {
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "max_position_embeddings": 2048,
    "vocab_size": 50304,
}
ATTENTION_BIAS = When("attention_bias", False)
_NORMS = ("ln1.w", "ln2.w", "ln_final.w")


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.ungroup_if_equal(llama_like.read_shape(config, DEFAULTS))
    config.flag("attention_bias", False)
    return {
        **fields,
        "act_fn": config.activation("hidden_act", "silu"),
        # transformers fixes it, whatever config.json says.
        "eps": 1e-5,
        "normalization_type": "LN",
        "norm_weight": False,
        "clip_qkv": config.number_or_none("clip_qkv", None, above=0),
        **config.rotary(fields["d_head"], fields["n_ctx"]),
    }


OLMO = Architecture(
    name="OlmoForCausalLM",
    model_type="olmo",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once={name: recipe for name, recipe in llama_like.ONCE.items() if name not in _NORMS},
    block={
        **{name: recipe for name, recipe in llama_like.BLOCK.items() if name not in _NORMS},
        **llama_like.attention_biases(ATTENTION_BIAS),
    },
    dropped=llama_like.DROPPED,
    read_config=_read,
    required={**llama_like.REQUIRED, "mlp_bias": False},
)
