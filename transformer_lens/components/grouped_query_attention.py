"""Upstream's path of grouped-query attention."""

from transformer_lens.components.attention.grouped_query import GroupedQueryAttention

__all__ = ["GroupedQueryAttention"]
