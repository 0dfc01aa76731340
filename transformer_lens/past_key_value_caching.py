"""Upstream 2's path and names of the key-value cache."""

from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.cache.key_value_cache_entry import TransformerLensKeyValueCacheEntry
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig  # noqa: F401  upstream has it here
from transformer_lens.utilities.devices import get_device_for_block_index  # noqa: F401  upstream has it here

HookedTransformerKeyValueCache = TransformerLensKeyValueCache
HookedTransformerKeyValueCacheEntry = TransformerLensKeyValueCacheEntry
EasyTransformerKeyValueCache = TransformerLensKeyValueCache
EasyTransformerKeyValueCacheEntry = TransformerLensKeyValueCacheEntry
