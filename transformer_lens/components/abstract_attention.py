"""Upstream's path of the base of attention."""

from transformer_lens.components.attention.abstract_attention import AbstractAttention

__all__ = ["AbstractAttention"]
