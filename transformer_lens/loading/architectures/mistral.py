"""Mistral: Llama without biases, and with a window on every layer."""

from typing import Any

from transformer_lens.loading.architectures import llama_like
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView

_DEFAULTS = {
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "max_position_embeddings": 131072,
    "vocab_size": 32000,
}
# transformers' class fills in a window where config.json has no such key; null means none.
_WINDOW_IF_ABSENT = 4096


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.read_sizes(config, _DEFAULTS)
    size = config.window("sliding_window", _WINDOW_IF_ABSENT)
    return {
        **fields,
        **llama_like.window(size, ["sliding_attention"] * fields["n_layers"]),
        **config.rotary(fields["d_head"], fields["n_ctx"]),
    }


MISTRAL = Architecture(
    name="MistralForCausalLM",
    model_type="mistral",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block=llama_like.BLOCK,
    dropped=llama_like.DROPPED,
    read_config=_read,
    required={**llama_like.REQUIRED, **llama_like.UNBIASED},
)
