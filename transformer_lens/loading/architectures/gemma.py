"""Gemma 1."""

from typing import Any

from transformer_lens.loading.architectures import gemma_like, llama_like
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView

_DEFAULTS = {
    "hidden_size": 3072,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 256,
    "intermediate_size": 24576,
    "num_hidden_layers": 28,
    "max_position_embeddings": 8192,
    "vocab_size": 256000,
}


def _read(config: ConfigView) -> dict[str, Any]:
    # Files have both; the newer name goes before the older one.
    newer = config.take("hidden_activation") is not None
    config.take("hidden_act")
    fields = gemma_like.read_sizes(config, _DEFAULTS, "hidden_activation" if newer else "hidden_act")
    return {**fields, **config.rotary(fields["d_head"], fields["n_ctx"])}


GEMMA = Architecture(
    name="GemmaForCausalLM",
    model_type="gemma",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block={**llama_like.BLOCK, **llama_like.attention_biases(gemma_like.ATTENTION_BIAS)},
    dropped=llama_like.DROPPED,
    read_config=_read,
    required=llama_like.REQUIRED,
    ties_by_default=True,
)
