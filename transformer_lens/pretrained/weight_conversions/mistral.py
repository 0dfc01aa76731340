"""Upstream's path of ``convert_mistral_weights``."""

from transformer_lens.pretrained.weight_conversions.converters import convert_mistral_weights

__all__ = ["convert_mistral_weights"]
