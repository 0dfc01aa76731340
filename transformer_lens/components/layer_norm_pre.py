"""Upstream's place of `LayerNormPre`."""

from transformer_lens.components.norms import LayerNormPre

__all__ = ["LayerNormPre"]
