"""Upstream's path of ``convert_nanogpt_weights``."""

from transformer_lens.pretrained.weight_conversions.converters import convert_nanogpt_weights

__all__ = ["convert_nanogpt_weights"]
