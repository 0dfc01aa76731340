"""The keys and values of one layer."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.config.transformer_lens_config import TransformerLensConfig  # noqa: F401  upstream has it here

Keys = Float[Tensor, "batch pos kv_head d_head"]
AllKeys = Float[Tensor, "batch total_pos kv_head d_head"]


class TransformerLensKeyValueCacheEntry:
    """Keys and values of the positions so far; appending a token costs about that token.

    Memory grows by half whenever it is full. Keys are kept as attention wants them: rotated, unless the angle depends
    on the length of the sequence.

    Attributes:
        frozen: Whether `append` leaves the entry as it is.
    """

    frozen: bool = False

    def __init__(self, past_keys: Keys, past_values: Keys, frozen: bool = False) -> None:
        self._keys = past_keys
        self._values = past_values
        self._length = past_keys.shape[1]
        self.frozen = frozen

    @property
    def past_keys(self) -> Keys:
        """Keys so far."""
        return self._keys[:, : self._length]

    @past_keys.setter
    def past_keys(self, value: Keys) -> None:
        self._keys, self._values, self._length = value, self.past_values, value.shape[1]

    @property
    def past_values(self) -> Keys:
        """Values so far."""
        return self._values[:, : self._length]

    @past_values.setter
    def past_values(self, value: Keys) -> None:
        self._keys, self._values, self._length = self.past_keys, value, value.shape[1]

    @classmethod
    def init_cache_entry(
        cls, cfg: HookedTransformerConfig, device: torch.device | str | None, batch_size: int = 1
    ) -> TransformerLensKeyValueCacheEntry:
        """Makes an empty entry."""
        heads = cfg.n_heads if cfg.ungroup_grouped_query_attention else cfg.n_kv_heads
        empty = torch.empty((batch_size, 0, heads, cfg.d_head), device=device, dtype=cfg.dtype)
        return cls(empty, empty)

    def append(self, new_keys: Keys, new_values: Keys) -> tuple[AllKeys, AllKeys]:
        """Takes in new positions and returns all of them; a frozen entry returns them and stays as it was."""
        new_keys, new_values = new_keys.to(self._keys.device), new_values.to(self._values.device)
        tracked = torch.is_grad_enabled() and (new_keys.requires_grad or self._keys.requires_grad)
        if self.frozen or tracked:
            keys = torch.cat([self.past_keys, new_keys], dim=1)
            values = torch.cat([self.past_values, new_values], dim=1)
            if not self.frozen:
                self._keys, self._values, self._length = keys, values, keys.shape[1]
            return keys, values
        end = self._length + new_keys.shape[1]
        if end > self._keys.shape[1]:
            self._keys = self._grown(self.past_keys, new_keys, end)
            self._values = self._grown(self.past_values, new_values, end)
        self._keys[:, self._length : end] = new_keys
        self._values[:, self._length : end] = new_values
        self._length = end
        return self.past_keys, self.past_values

    @staticmethod
    def _grown(past: Tensor, new: Tensor, end: int) -> Tensor:
        batch = new.shape[0]
        room = torch.empty((batch, max(end + end // 2, 32), *new.shape[2:]), dtype=new.dtype, device=new.device)
        room[:, : past.shape[1]] = past
        return room
