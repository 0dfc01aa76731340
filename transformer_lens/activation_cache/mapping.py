"""The mapping itself: activations by full or short names."""

from __future__ import annotations

import logging
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Any, TypeVar

import torch
from torch import Tensor

from transformer_lens.utilities.components_utils import get_act_name
from transformer_lens.utilities.slice import Slice, SliceInput

T = TypeVar("T", bound="CacheMapping")


class CacheMapping:
    """Activations by name.

    ``cache["blocks.3.attn.hook_pattern"]``, ``cache["pattern", 3]`` and ``cache["pattern", 3, "attn"]`` are the same;
    negative layers count from the last.

    Attributes:
        cache_dict: Activations by full names.
        model: The model they came from.
        has_batch_dim: Whether they have a batch axis.
        has_embed: Whether the token embedding is among them.
        has_pos_embed: Whether the position embedding is among them.
    """

    def __init__(self, cache_dict: dict[str, Tensor], model: Any, has_batch_dim: bool = True) -> None:
        self.cache_dict = cache_dict
        self.model = model
        self.has_batch_dim = has_batch_dim
        self.has_embed = "hook_embed" in cache_dict
        self.has_pos_embed = "hook_pos_embed" in cache_dict

    def __getitem__(self, key: Any) -> Tensor:
        if isinstance(key, str):
            return self.cache_dict[key if key in self.cache_dict else get_act_name(key)]
        if not isinstance(key, tuple):
            raise TypeError(f"{key!r} is neither a name nor a tuple of a name and a layer.")
        if len(key) > 1 and isinstance(key[1], int) and key[1] < 0:
            key = (key[0], self.model.cfg.n_layers + key[1], *key[2:])
        return self.cache_dict[get_act_name(*key)]

    def __contains__(self, key: Any) -> bool:
        try:
            self[key]
        except KeyError:
            return False
        return True

    def __len__(self) -> int:
        return len(self.cache_dict)

    def __iter__(self) -> Iterator[str]:
        return iter(self.cache_dict)

    def __repr__(self) -> str:
        return f"ActivationCache with keys {list(self.cache_dict)}"

    def keys(self) -> KeysView[str]:
        """Returns the full names."""
        return self.cache_dict.keys()

    def values(self) -> ValuesView[Tensor]:
        """Returns the activations."""
        return self.cache_dict.values()

    def items(self) -> ItemsView[str, Tensor]:
        """Returns names and activations."""
        return self.cache_dict.items()

    def to(self: T, device: str | torch.device, move_model: bool = False) -> T:
        """Moves the activations to a device, in place; the model goes along only if told."""
        self.cache_dict = {name: tensor.to(device) for name, tensor in self.cache_dict.items()}
        if move_model:
            self.model.to(device)
        return self

    def toggle_autodiff(self, mode: bool = False) -> None:
        """Switches torch's autograd on or off, everywhere. A cache made with gradients holds the whole graph."""
        logging.getLogger(__name__).warning("Autograd is now %s for the whole process.", "on" if mode else "off")
        torch.set_grad_enabled(mode)

    def remove_batch_dim(self: T) -> T:
        """Drops the batch axis of every activation, in place.

        Raises:
            ValueError: The batch has more than one entry.
        """
        if not self.has_batch_dim:
            logging.getLogger(__name__).warning("The cache has no batch axis already.")
            return self
        for name, tensor in self.cache_dict.items():
            if tensor.shape[0] != 1:
                raise ValueError(f"{name} has a batch of {tensor.shape[0]}: only a batch of one can be dropped.")
        self.cache_dict = {name: tensor[0] for name, tensor in self.cache_dict.items()}
        self.has_batch_dim = False
        return self

    def apply_slice_to_batch_dim(self: T, batch_slice: Slice | SliceInput) -> T:
        """Returns a cache of part of the batch; a number drops the axis.

        Raises:
            ValueError: There is no batch axis.
        """
        if not isinstance(batch_slice, Slice):
            batch_slice = Slice(batch_slice)
        if not self.has_batch_dim:
            raise ValueError("The cache has no batch axis to slice.")
        sliced = {name: batch_slice.apply(tensor, dim=0) for name, tensor in self.cache_dict.items()}
        return type(self)(sliced, self.model, has_batch_dim=batch_slice.mode not in ("int",))

    def _layers(self, layer: int | None) -> int:
        """Returns how many layers are meant: None and -1 mean all."""
        return int(self.model.cfg.n_layers) if layer is None or layer == -1 else layer


def as_slice(value: Slice | SliceInput) -> Slice:
    """Returns a Slice; a bare number drops its axis."""
    return value if isinstance(value, Slice) else Slice(value)
