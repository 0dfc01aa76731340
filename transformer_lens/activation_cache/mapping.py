"""Activations by name."""

import difflib
import logging
import warnings
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Any, SupportsIndex, TypeVar

import torch
from torch import Tensor

from transformer_lens.activation_cache.summary import CacheSummary
from transformer_lens.utilities.components_utils import get_act_name
from transformer_lens.utilities.devices import warn_if_mps
from transformer_lens.utilities.indices import as_index, as_layer
from transformer_lens.utilities.slice import Slice, SliceInput

__all__ = ["CacheMapping", "as_slice"]

Cache = TypeVar("Cache", bound="CacheMapping")


def as_slice(selection: Slice | SliceInput) -> Slice:
    """Reads a selection; unlike `Slice.unwrap`, an int takes its axis away."""
    return selection if isinstance(selection, Slice) else Slice(selection)


class CacheMapping:
    """What a run left behind: a read-only mapping from hook names to activations, and the model they are of.

    Attributes:
        cache_dict: The activations by the full name of their hook point.
        model: The model that ran.
        has_batch_dim: The first axis of every activation is the batch.
        has_embed, has_pos_embed: The embeddings of tokens and of positions were kept.
    """

    def __init__(self, cache_dict: dict[str, Tensor], model: Any, has_batch_dim: bool = True) -> None:
        self.cache_dict = cache_dict
        self.model = model
        self.has_batch_dim = has_batch_dim
        self.has_embed = "hook_embed" in cache_dict
        self.has_pos_embed = "hook_pos_embed" in cache_dict

    def __getitem__(self, key: Any) -> Tensor:
        """Looks up an activation.

        Args:
            key: A hook's name; its short form, ``"embed"`` or ``"k1"``; or a tuple, the arguments of `get_act_name`:
                ``("k", 1)``, ``("scale", 1, "ln2")``. The layer is of any integer type, such as a tensor of one; a
                negative one counts from the end.

        Raises:
            KeyError: There is none of this name, or no such layer.
            TypeError: The layer is no integer.
        """
        if isinstance(key, str) and key in self.cache_dict:
            return self.cache_dict[key]
        parts = list(key) if isinstance(key, tuple) else [key]
        if len(parts) > 1 and parts[1] is not None and not isinstance(parts[1], str):
            parts[1] = as_index(parts[1], "layer")
            if parts[1] < 0:
                try:
                    parts[1] = as_layer(parts[1], self.model.cfg.n_layers)
                except IndexError as fact:
                    raise KeyError(f"{key!r}: {fact}") from None
        name = get_act_name(*parts)
        if name not in self.cache_dict:
            nearest = difflib.get_close_matches(name, self.cache_dict, n=3)
            hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
            raise KeyError(f"{name!r} is not in the cache of {len(self)} activations{hint}")
        return self.cache_dict[name]

    def __contains__(self, name: object) -> bool:
        """Says whether there is an activation of this full name."""
        return name in self.cache_dict

    def __iter__(self) -> Iterator[str]:
        return iter(self.cache_dict)

    def __len__(self) -> int:
        return len(self.cache_dict)

    def __repr__(self) -> str:
        return f"ActivationCache with keys {list(self.cache_dict)}"

    def summary(self) -> CacheSummary:
        """Returns a table of the activations: names, shapes, dtypes, bytes; ``print(cache.summary())``."""
        return CacheSummary.of(self.cache_dict)

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    def keys(self) -> KeysView[str]:
        """Returns the full names, in the order in which the model came to them."""
        return self.cache_dict.keys()

    def values(self) -> ValuesView[Tensor]:
        """Returns the activations."""
        return self.cache_dict.values()

    def items(self) -> ItemsView[str, Tensor]:
        """Returns pairs of full name and activation."""
        return self.cache_dict.items()

    def to(self: Cache, device: str | torch.device, move_model: bool = False) -> Cache:
        """Moves the activations to a device, in place.

        What needs weights, such as `compute_head_results`, needs the model on the same device.

        Args:
            device: Where to.
            move_model: Move the model too; deprecated, in favour of ``model.to(device)``.

        Returns:
            The cache itself.
        """
        warn_if_mps(device)
        self.cache_dict = {name: value.to(device) for name, value in self.cache_dict.items()}
        if move_model:
            warnings.warn("move_model is deprecated: use model.to(device)", DeprecationWarning, stacklevel=2)
            self.model.to(device)
        return self

    def toggle_autodiff(self, mode: bool = False) -> None:
        """Turns torch's recording of gradients on or off, for the whole process.

        Args:
            mode: On; off saves much memory where no backward pass is wanted.
        """
        logging.getLogger(__name__).warning("autodiff is set to %s for the whole process", mode)
        torch.set_grad_enabled(mode)

    def remove_batch_dim(self: Cache) -> Cache:
        """Takes the batch axis, of length one, off every activation, in place.

        Returns:
            The cache itself.

        Raises:
            AssertionError: There is more than one row.
        """
        if not self.has_batch_dim:
            logging.getLogger(__name__).warning("the batch dimension was removed already")
            return self
        for name, value in self.cache_dict.items():
            assert value.shape[0] == 1, f"{name} has {value.shape[0]} rows: only a batch of one can be removed"
        self.cache_dict = {name: value[0] for name, value in self.cache_dict.items()}
        self.has_batch_dim = False
        return self

    def apply_slice_to_batch_dim(self: Cache, batch_slice: Slice | SliceInput) -> Cache:
        """Selects rows of the batch.

        Args:
            batch_slice: Which rows; by an int, the batch axis goes.

        Returns:
            A new cache; the rows are views where the selection allows it.

        Raises:
            AssertionError: There is no batch axis to select from.
        """
        rows = as_slice(batch_slice)
        assert self.has_batch_dim or rows.mode == "identity", "there is no batch dimension to select from"
        selected = {name: rows.apply(value, dim=0) for name, value in self.cache_dict.items()}
        return type(self)(selected, self.model, has_batch_dim=self.has_batch_dim and rows.mode != "int")

    def layer_of(self, layer: SupportsIndex | None, mlp_input: bool = False) -> int:
        """Reads which layer's input is meant: None and -1 are that of the unembedding, ``n_layers``.

        Raises:
            TypeError: `layer` is no integer.
            ValueError: There is no such input.
        """
        n_layers = int(self.model.cfg.n_layers)
        found = -1 if layer is None else as_index(layer, "layer")
        found = n_layers if found == -1 else found
        if not 0 <= found <= n_layers:
            raise ValueError(f"layer is {layer}; it can be 0 to {n_layers}, or -1 or None for the unembedding's input")
        if mlp_input and found == n_layers:
            raise ValueError(f"mlp_input: there is no MLP in layer {n_layers}, which is the unembedding")
        return found
