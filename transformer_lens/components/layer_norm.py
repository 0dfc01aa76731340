"""Upstream's place of `LayerNorm`."""

from transformer_lens.components.norms import LayerNorm
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.hook_points import HookPoint

__all__ = ["HookPoint", "HookedTransformerConfig", "LayerNorm"]
