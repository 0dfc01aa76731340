"""Upstream 3's name for the part of a config that all its model classes share; here it is the whole."""

from transformer_lens.config.hooked_transformer_config import TransformerLensConfig

__all__ = ["TransformerLensConfig"]
