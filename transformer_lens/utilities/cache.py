"""Positions that a key-value cache has filled."""

from typing import Any


def get_pos_offset(past_kv_cache: Any, batch_size: int) -> int:
    """Counts the tokens in a key-value cache; 0 where it is None.

    Args:
        past_kv_cache: A cache of ``[batch, pos, head, d_head]`` keys for each layer, or None.
        batch_size: Rows of the input, which must be those of the cache.
    """
    if past_kv_cache is None:
        return 0
    cached_batch, length = past_kv_cache[0].past_keys.shape[:2]
    assert cached_batch == batch_size, f"the cache has {cached_batch} rows, the input {batch_size}"
    return int(length)
