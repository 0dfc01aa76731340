"""Upstream's path of the base of attention."""

from transformer_lens.cache.key_value_cache_entry import TransformerLensKeyValueCacheEntry
from transformer_lens.components.attention.abstract_attention import AbstractAttention
from transformer_lens.components.norms import RMSNorm
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.FactoredMatrix import FactoredMatrix
from transformer_lens.hook_points import HookPoint
from transformer_lens.utilities.activation_functions import apply_softcap
from transformer_lens.utilities.attention import complex_attn_linear, simple_attn_linear
from transformer_lens.utilities.tensors import get_offset_position_ids

HookedTransformerKeyValueCacheEntry = TransformerLensKeyValueCacheEntry

__all__ = [
    "AbstractAttention",
    "FactoredMatrix",
    "HookPoint",
    "HookedTransformerConfig",
    "HookedTransformerKeyValueCacheEntry",
    "RMSNorm",
    "TransformerLensKeyValueCacheEntry",
    "apply_softcap",
    "complex_attn_linear",
    "get_offset_position_ids",
    "simple_attn_linear",
]
