"""Upstream's path of ``convert_neel_solu_old_weights``."""

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions.converters import convert_neel_solu_old_weights

__all__ = ["HookedTransformerConfig", "convert_neel_solu_old_weights"]
