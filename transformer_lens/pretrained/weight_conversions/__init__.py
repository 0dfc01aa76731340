"""Upstream's converters, one function a family, over the registry of tables.

Each takes a live transformers model (nanoGPT's takes a state dict) and a config, and returns a state dict in our names.
Its tensors are views of the model's own wherever a layout allows it: write to none of them.
"""

# Upstream's import paths are attributes as well.
from transformer_lens.pretrained.weight_conversions import gpt2, llama, mistral, nanogpt, neox, phi3, qwen2  # noqa: F401
from transformer_lens.pretrained.weight_conversions.converters import (
    convert_gpt2_weights,
    convert_llama_weights,
    convert_mistral_weights,
    convert_nanogpt_weights,
    convert_neox_weights,
    convert_phi3_weights,
    convert_qwen2_weights,
)

__all__ = [
    "convert_gpt2_weights",
    "convert_llama_weights",
    "convert_mistral_weights",
    "convert_nanogpt_weights",
    "convert_neox_weights",
    "convert_phi3_weights",
    "convert_qwen2_weights",
]


def __getattr__(name: str) -> object:
    if name.startswith("convert_") and name.endswith("_weights"):
        raise ImportError(
            f"transformer_lens.pretrained.weight_conversions.{name} is not part of this release; "
            f"there are: {', '.join(__all__)}."
        )
    raise AttributeError(f"module 'transformer_lens.pretrained.weight_conversions' has no attribute {name!r}")
