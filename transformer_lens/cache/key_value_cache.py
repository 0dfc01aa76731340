"""The keys and values of every layer."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from transformer_lens.cache.key_value_cache_entry import TransformerLensKeyValueCacheEntry
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.config.transformer_lens_config import TransformerLensConfig  # noqa: F401  upstream has it here
from transformer_lens.utilities.devices import get_device_for_block_index


class TransformerLensKeyValueCache:
    """One entry a layer, and the attention mask of the positions so far.

    Attributes:
        entries: One a layer.
        previous_attention_mask: 1 for real tokens, 0 for padding, of the cached positions.
        frozen: Whether running the model leaves the cache as it is.
    """

    frozen: bool = False

    def __init__(
        self,
        entries: list[TransformerLensKeyValueCacheEntry],
        previous_attention_mask: Int[Tensor, "batch pos"],
        frozen: bool = False,
    ) -> None:
        self.entries = entries
        self.previous_attention_mask = previous_attention_mask
        self.frozen = frozen

    @classmethod
    def init_cache(
        cls, cfg: HookedTransformerConfig, device: torch.device | str | None = None, batch_size: int = 1
    ) -> TransformerLensKeyValueCache:
        """Makes an empty cache for a model."""
        device = cfg.device if device is None else device
        return cls(
            entries=[
                TransformerLensKeyValueCacheEntry.init_cache_entry(
                    cfg, get_device_for_block_index(layer, cfg, device), batch_size
                )
                for layer in range(cfg.n_layers)
            ],
            previous_attention_mask=torch.empty((batch_size, 0), device=device, dtype=torch.int),
        )

    def freeze(self) -> None:
        """Makes running the model leave the cache as it is."""
        self.frozen = True
        for entry in self.entries:
            entry.frozen = True

    def unfreeze(self) -> None:
        """Makes running the model add to the cache again."""
        self.frozen = False
        for entry in self.entries:
            entry.frozen = False

    def append_attention_mask(self, attention_mask: Int[Tensor, "batch new_pos"]) -> Int[Tensor, "batch pos"]:
        """Takes in the mask of new positions and returns that of all; frozen, it only returns it."""
        past = self.previous_attention_mask.to(attention_mask.device)
        mask = torch.cat([past.to(attention_mask.dtype), attention_mask], dim=-1)
        if not self.frozen:
            self.previous_attention_mask = mask
        return mask

    def __getitem__(self, idx: int) -> TransformerLensKeyValueCacheEntry:
        return self.entries[idx]

    def __len__(self) -> int:
        return len(self.entries)
