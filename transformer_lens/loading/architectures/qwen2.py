"""Qwen 1.5, 2 and 2.5: Llama with biases on queries, keys and values, and windows on the later layers."""

from typing import Any

from transformer_lens.loading.architectures import llama_like
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Take

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
    windowed = config.flag("use_sliding_window", False)
    size = config.size_or_none("sliding_window", 4096, "tokens")
    # 0 is a window on every layer.
    first = config.check_size("max_window_layers", config.take("max_window_layers", 28), 100_000, smallest=0)
    layer_types = config.layer_types(fields["n_layers"])
    if layer_types is not None and "sliding_attention" in layer_types and not (windowed and size):
        config.problems.append("layer_types: windows on some layers, which use_sliding_window or sliding_window denies")
    if layer_types is None:
        layer_types = [
            "sliding_attention" if layer >= first else "full_attention" for layer in range(fields["n_layers"])
        ]
    return {
        **fields,
        "default_prepend_bos": False,
        **llama_like.window(size if windowed else None, layer_types),
        **config.rotary(fields["d_head"], fields["n_ctx"]),
    }


QWEN2 = Architecture(
    name="Qwen2ForCausalLM",
    model_type="qwen2",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block={
        **llama_like.BLOCK,
        "attn.b_Q": Take("{p}layers.{i}.self_attn.q_proj.bias", "(head d_head)"),
        "attn.b_K": Take("{p}layers.{i}.self_attn.k_proj.bias", "(kv_head d_head)"),
        "attn.b_V": Take("{p}layers.{i}.self_attn.v_proj.bias", "(kv_head d_head)"),
    },
    dropped=llama_like.DROPPED,
    read_config=_read,
    required={**llama_like.REQUIRED, **llama_like.UNBIASED},
)
