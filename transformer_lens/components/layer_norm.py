"""Upstream's place of `LayerNorm`."""

from transformer_lens.components.norms import LayerNorm

__all__ = ["LayerNorm"]
