"""Upstream's place of `RMSNormPre`."""

from transformer_lens.components.norms import RMSNormPre

__all__ = ["RMSNormPre"]
