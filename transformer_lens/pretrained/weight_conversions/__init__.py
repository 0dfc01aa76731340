"""Upstream's converters, one function a family, over the registry of tables.

Each takes a live transformers model (nanoGPT's takes a state dict) and a config, and returns a state dict in our names.
Its tensors are views of the model's own wherever a layout allows it: write to none of them.
"""

from transformer_lens.pretrained.weight_conversions.gpt2 import convert_gpt2_weights
from transformer_lens.pretrained.weight_conversions.llama import convert_llama_weights
from transformer_lens.pretrained.weight_conversions.mistral import convert_mistral_weights
from transformer_lens.pretrained.weight_conversions.nanogpt import convert_nanogpt_weights
from transformer_lens.pretrained.weight_conversions.neox import convert_neox_weights
from transformer_lens.pretrained.weight_conversions.phi3 import convert_phi3_weights
from transformer_lens.pretrained.weight_conversions.qwen2 import convert_qwen2_weights

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
            f"there is a table for: {', '.join(__all__)}."
        )
    raise AttributeError(f"module 'transformer_lens.pretrained.weight_conversions' has no attribute {name!r}")
