"""Upstream's path of ``convert_qwen2_weights``."""

from transformer_lens.pretrained.weight_conversions.converters import convert_qwen2_weights

__all__ = ["convert_qwen2_weights"]
