"""A packed matrix, whatever packed it: its bytes are not numbers, and it is never seen through a layout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from transformer_lens.loading.quantization.beside import Beside

# Rows from the first number up to the second.
Run = tuple[int, int]


@dataclass(frozen=True)
class Compute:
    """How a packed matrix is multiplied: what bitsandbytes keeps beside the weight, in its module.

    Attributes:
        shape: (rows, columns) = (outputs, inputs) of the matrix.
        dtype: Of the product of a 4-bit matrix; None takes the activation's.
        threshold: Of an 8-bit matrix: columns in which an activation is larger are multiplied in half precision.
        beside: What is done to it beside its bytes; None for nothing.
    """

    shape: tuple[int, int]
    dtype: torch.dtype | None = None
    threshold: float = 0.0
    beside: Beside | None = field(default=None, compare=False, repr=False)

    def moved(self, device: torch.device) -> Compute:
        """Returns the same on another device."""
        return self if self.beside is None else replace(self, beside=self.beside.moved(device))


@dataclass(frozen=True)
class Packed(ABC):
    """A packed matrix [rows columns]; its tensors may be mapped or borrowed, and are never written to.

    Attributes:
        shape: (rows, columns).
        attributes: What else the parameter had that it was taken from.
    """

    shape: tuple[int, int]
    attributes: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    @abstractmethod
    def dequantized(self) -> Tensor:
        """Returns the numbers [rows columns], in memory of their own."""

    @abstractmethod
    def rows(self, runs: Sequence[Run]) -> Packed:
        """Returns some rows, packed: views for one run, gathered bytes for several.

        `Packing.can_gather` says for which runs.
        """

    @abstractmethod
    def moved(self, function: Callable[[Tensor], Tensor]) -> Packed:
        """Returns the same with each of its tensors passed through a function: a copy, or a move to a device."""


@dataclass(frozen=True)
class Packing:
    """How a matrix is packed: known before its bytes are read.

    Attributes:
        kind: "nf4", "fp4" or "int8".
        compute: How it is multiplied.
        nbytes: Bytes of the matrix and its scales.
        blocksize: Numbers that share a scale; 0 for scales by row.
        nested: Whether the scales are packed themselves.
        storage_bytes: Size of an element of the tensor that holds the bytes.
        number_dtype: What the matrix was packed from, and is unpacked to; float32 where nothing says it.
        make: Returns the packed matrix.
        beside: Returns what `compute` is to have as such; None for nothing.
    """

    kind: str
    compute: Compute
    nbytes: int
    blocksize: int
    nested: bool
    storage_bytes: int
    number_dtype: torch.dtype
    make: Callable[[], Packed] = field(repr=False)
    beside: Callable[[], Beside] | None = field(default=None, repr=False)

    def made_compute(self) -> Compute:
        """Returns how the matrix is multiplied, with what is beside its bytes."""
        return self.compute if self.beside is None else replace(self.compute, beside=self.beside())

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.compute.shape

    def can_gather(self, runs: Sequence[Run]) -> bool:
        """Whether rows can be gathered with their scales: whether every run starts and ends where a block does."""
        if not self.blocksize:
            return True
        rows, columns = self.shape
        last = len(runs) - 1
        count = sum(stop - start for start, stop in runs) * columns
        return (count // 2) % self.storage_bytes == 0 and all(
            start * columns % self.blocksize == 0
            and (stop * columns % self.blocksize == 0 or (place == last and stop == rows))
            for place, (start, stop) in enumerate(runs)
        )


def check_runs(runs: Sequence[Run], rows: int) -> None:
    """Checks that runs are of rows that there are: what is cut elsewhere would be read beyond its end."""
    assert all(0 <= start < stop <= rows for start, stop in runs), f"{runs} of {rows} rows"


def gathered(parts: Sequence[Tensor]) -> Tensor:
    """Returns slices as one tensor: a view if there is only one."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
