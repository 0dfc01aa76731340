"""Upstream's path of ``convert_gpt2_weights``."""

from transformer_lens.pretrained.weight_conversions.converters import convert_gpt2_weights

__all__ = ["convert_gpt2_weights"]
