"""Upstream's path of ``convert_llama_weights``."""

from transformer_lens.pretrained.weight_conversions.converters import convert_llama_weights

__all__ = ["convert_llama_weights"]
