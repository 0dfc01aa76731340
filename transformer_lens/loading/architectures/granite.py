"""Granite: Llama with multipliers of the embedding, of scores, of what branches write and of the logits."""

from typing import Any

from transformer_lens.loading.architectures import llama_like
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import When

_DEFAULTS = {
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "max_position_embeddings": 2048,
    "vocab_size": 32000,
}


def read_multipliers(config: ConfigView) -> dict[str, Any]:
    """Returns the multipliers of the embedding, of scores, of what branches write and of the logits."""
    return {
        "embedding_multiplier": config.number("embedding_multiplier", 1.0),
        "attn_scale": 1.0 / config.number("attention_multiplier", 1.0, above=0),
        "residual_multiplier": config.number("residual_multiplier", 1.0),
        "logit_multiplier": 1.0 / config.number("logits_scaling", 1.0, above=0),
    }


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.ungroup_if_equal(llama_like.read_sizes(config, _DEFAULTS))
    config.flag("attention_bias", False)
    return {
        **fields,
        "gated_mlp_bias": config.flag("mlp_bias", False),
        **read_multipliers(config),
        **config.rotary(fields["d_head"], fields["n_ctx"]),
    }


GRANITE = Architecture(
    name="GraniteForCausalLM",
    model_type="granite",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block={
        **llama_like.BLOCK,
        **llama_like.attention_biases(When("attention_bias", False)),
        **llama_like.mlp_biases(When("mlp_bias", False)),
    },
    dropped=llama_like.DROPPED,
    read_config=_read,
    required=llama_like.REQUIRED,
)
