"""Qwen 1.5, 2 and 2.5: Llama with biases on queries, keys and values, and windows on the later layers."""

from typing import Any

from transformer_lens.loading.architectures import llama_like
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView

_DEFAULTS = {
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "max_position_embeddings": 32768,
    "vocab_size": 151936,
}


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.read_sizes(config, _DEFAULTS)
    return {
        **fields,
        "default_prepend_bos": False,
        **llama_like.qwen_windows(config, fields["n_layers"]),
        **config.rotary(fields["d_head"], fields["n_ctx"]),
    }


QWEN2 = Architecture(
    name="Qwen2ForCausalLM",
    model_type="qwen2",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block={**llama_like.BLOCK, **llama_like.attention_biases(output=False)},
    dropped=llama_like.DROPPED,
    read_config=_read,
    required={**llama_like.REQUIRED, **llama_like.UNBIASED},
)
