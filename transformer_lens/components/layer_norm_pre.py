"""Upstream's place of `LayerNormPre`."""

from transformer_lens.components.norms import LayerNormPre
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.hook_points import HookPoint

__all__ = ["HookPoint", "HookedTransformerConfig", "LayerNormPre"]
