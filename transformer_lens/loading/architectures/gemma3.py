"""Gemma 3, alone or inside a model that sees: five layers with a window to one without, each kind rotated its way."""

from dataclasses import replace
from typing import Any

from transformer_lens.loading.architectures import gemma_like, llama_like
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Take
from transformer_lens.loading.conversion.rotary import read_rotary_by_layer_type

_DEFAULTS = {
    "hidden_size": 2304,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "max_position_embeddings": 131072,
    "vocab_size": 262208,
}


def _read(config: ConfigView) -> dict[str, Any]:
    fields = gemma_like.read_sizes(config, _DEFAULTS, "hidden_activation")
    pattern = config.size(config.spelling("sliding_window_pattern", "_sliding_window_pattern"), 6, "layers")
    layer_types = config.layer_types(fields["n_layers"])
    if layer_types is None:
        layer_types = llama_like.every_nth_is_full(fields["n_layers"], pattern)
    return {
        **fields,
        "use_normalization_before_and_after": True,
        "use_qk_norm": True,
        **gemma_like.read_scale(config),
        **gemma_like.read_caps(config, None, None),
        **llama_like.window(config.window("sliding_window", 4096), layer_types),
        **read_rotary_by_layer_type(
            config, fields["d_head"], fields["n_ctx"], 1_000_000.0, 10_000.0, "rope_local_base_freq"
        ),
    }


GEMMA3 = Architecture(
    name="Gemma3ForCausalLM",
    model_type="gemma3_text",
    written_in="gemma3",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block={
        **gemma_like.SANDWICH,
        **llama_like.QUERY_KEY_NORMS,
        **llama_like.attention_biases(gemma_like.ATTENTION_BIAS),
    },
    dropped=llama_like.DROPPED,
    read_config=_read,
    ignored={
        "hidden_act": "transformers reads hidden_activation",
        "cache_implementation": "how transformers keeps keys and values",
    },
    required=llama_like.REQUIRED,
    ties_by_default=True,
)

_VISION = "part of the vision tower, which a language model has no place for"
_HEADS = ("lm_head.weight", "language_model.lm_head.weight", "model.language_model.lm_head.weight")

GEMMA3_MULTIMODAL = replace(
    GEMMA3,
    name="Gemma3ForConditionalGeneration",
    model_type="gemma3",
    prefix="language_model.model.",
    other_prefixes=("model.language_model.", "model.language_model.model."),
    once={
        **GEMMA3.once,
        "unembed.W_U": Take(_HEADS, "d_vocab_out d_model", tied_to="{p}embed_tokens.weight"),
    },
    text_config="text_config",
    beside_text={
        "vision_config": _VISION,
        "mm_tokens_per_image": _VISION,
        "image_token_index": _VISION,
        "image_token_id": _VISION,
        "boi_token_index": _VISION,
        "boi_token_id": _VISION,
        "eoi_token_index": _VISION,
        "eoi_token_id": _VISION,
    },
    dropped_parts={
        prefix + part: _VISION for prefix in ("", "model.") for part in ("vision_tower.", "multi_modal_projector.")
    },
)
