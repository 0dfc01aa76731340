"""Upstream's path of grouped-query attention."""

from transformer_lens.components.attention.abstract_attention import AbstractAttention
from transformer_lens.components.attention.grouped_query import GroupedQueryAttention
from transformer_lens.components.norms import RMSNorm
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.utilities.attention import complex_attn_linear, simple_attn_linear

__all__ = [
    "AbstractAttention",
    "GroupedQueryAttention",
    "HookedTransformerConfig",
    "RMSNorm",
    "complex_attn_linear",
    "simple_attn_linear",
]
