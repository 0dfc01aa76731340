"""Gemma 2: four norms a block, caps of scores and logits, a window on every other layer."""

from typing import Any

from transformer_lens.loading.architectures import gemma_like, llama_like
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView

_DEFAULTS = {
    "hidden_size": 2304,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "max_position_embeddings": 8192,
    "vocab_size": 256000,
}


def _read(config: ConfigView) -> dict[str, Any]:
    fields = gemma_like.read_sizes(config, _DEFAULTS, "hidden_activation")
    layer_types = config.layer_types(fields["n_layers"])
    if layer_types is None:
        layer_types = llama_like.every_nth_is_full(fields["n_layers"], 2)
    return {
        **fields,
        "use_normalization_before_and_after": True,
        **gemma_like.read_scale(config),
        **gemma_like.read_caps(config, 50.0, 30.0),
        **llama_like.window(config.window("sliding_window", 4096), layer_types),
        **config.rotary(fields["d_head"], fields["n_ctx"]),
    }


GEMMA2 = Architecture(
    name="Gemma2ForCausalLM",
    model_type="gemma2",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block={**gemma_like.SANDWICH, **llama_like.attention_biases(gemma_like.ATTENTION_BIAS)},
    dropped=llama_like.DROPPED,
    read_config=_read,
    ignored={
        "hidden_act": "transformers reads hidden_activation",
        "cache_implementation": "how transformers keeps keys and values",
        "sliding_window_size": "a leftover of training; transformers reads sliding_window",
    },
    required=llama_like.REQUIRED,
    ties_by_default=True,
)
