"""Promises that are computed: their result can be had before it is rounded, in any dtype, on any device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from transformer_lens.loading.memory.fresh import empty_in_order, order_of


@dataclass(frozen=True)
class Computation(ABC):
    """A promise's `make` that knows its result before it is rounded: it can be had in any dtype, on any device."""

    dtype: torch.dtype
    device: torch.device

    def __call__(self) -> Tensor:
        """Computes the result into new memory."""
        with torch.no_grad():
            return self.result()

    @abstractmethod
    def result(self) -> Tensor:
        """Computes the result; gradients are off."""


@dataclass(frozen=True)
class Computed(Computation):
    """What a function returns, in a dtype, on a device; the function's result may be an alias of what it read."""

    function: Callable[[], Tensor]

    def result(self) -> Tensor:
        """Calls the function."""
        found = self.function()
        return empty_in_order(found.shape, order_of(found), self.dtype, self.device).copy_(found)
