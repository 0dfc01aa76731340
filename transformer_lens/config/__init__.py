"""Configs: what a model is, as data."""

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.config.rope_scaling import InvalidConfigError
from transformer_lens.config.transformer_lens_config import TransformerLensConfig

__all__ = ["HookedTransformerConfig", "InvalidConfigError", "TransformerLensConfig"]
