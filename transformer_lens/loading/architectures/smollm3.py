"""SmolLM3: Llama of which some layers do not rotate, and may have a window."""

from typing import Any

from transformer_lens.loading.architectures import llama_like
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import When

_DEFAULTS = {
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "max_position_embeddings": 32768,
    "vocab_size": 128256,
}


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.ungroup_if_equal(llama_like.read_sizes(config, _DEFAULTS))
    n_layers = fields["n_layers"]
    config.flag("attention_bias", False)
    interval = config.size("no_rope_layer_interval", 4, "layers")
    rotates = config.numbers_by_layer("no_rope_layers", n_layers)
    if rotates is None:
        rotates = [int((layer + 1) % interval != 0) for layer in range(n_layers)]
    windowed = config.flag("use_sliding_window", False)
    size = config.window("sliding_window", None)
    layer_types = config.layer_types(n_layers)
    if layer_types is None:
        # The field's name means the opposite: 1 is a layer that rotates.
        layer_types = [
            "sliding_attention" if windowed and size is not None and not turns else "full_attention"
            for turns in rotates
        ]
    return {
        **fields,
        "gated_mlp_bias": config.flag("mlp_bias", False),
        "rotary_layers": [bool(turns) for turns in rotates],
        **llama_like.window(size, layer_types),
        **config.rotary(fields["d_head"], fields["n_ctx"], 2_000_000.0),
    }


SMOLLM3 = Architecture(
    name="SmolLM3ForCausalLM",
    model_type="smollm3",
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
    ignored={"max_window_layers": "a leftover of training; transformers does not read it"},
    required=llama_like.REQUIRED,
    ties_by_default=True,
)
