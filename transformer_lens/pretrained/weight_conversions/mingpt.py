"""Upstream's path of ``convert_mingpt_weights``."""

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions.converters import convert_mingpt_weights

__all__ = ["HookedTransformerConfig", "convert_mingpt_weights"]
