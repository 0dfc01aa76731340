"""Upstream's place of `RMSNorm`."""

from transformer_lens.components.norms import RMSNorm

__all__ = ["RMSNorm"]
