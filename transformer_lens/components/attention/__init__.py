"""Attention, one file a kind."""

from transformer_lens.components.attention.abstract_attention import AbstractAttention
from transformer_lens.components.attention.multi_head import Attention
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig

__all__ = ["AbstractAttention", "Attention", "HookedTransformerConfig"]
