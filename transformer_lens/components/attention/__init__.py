"""Attention, one file a kind."""

from transformer_lens.components.attention.multi_head import Attention

__all__ = ["Attention"]
