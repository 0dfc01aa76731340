"""What is done to a packed matrix beside its bytes: norms folded in and means taken away, exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from transformer_lens.loading.errors import CorruptCheckpointError

# The names under which a state dict of ours keeps it.
ENTRIES = SCALES, CENTRED = "column_scales", "centred"


@dataclass(frozen=True)
class Beside:
    """The matrix that is meant, by the one that is packed: scaled by columns, then centred.

    ``W' = W diag(scales)``, less its mean over inputs (each row), less its mean over outputs (each column).

    Attributes:
        scales: Of columns [columns]: the weight of a norm; None for ones.
        over_inputs: Whether the mean of each row is taken away. What is read has mean zero then, so no product changes.
        over_outputs: Whether the mean of each column is taken away.
    """

    scales: Tensor | None = None
    over_inputs: bool = False
    over_outputs: bool = False

    def numbers(self, matrix: Tensor) -> Tensor:
        """Returns what is meant by the numbers that were packed [rows columns], which are written over."""
        if self.scales is not None:
            matrix.mul_(self.scales)
        if self.over_inputs:
            matrix -= matrix.mean(1, keepdim=True)
        if self.over_outputs:
            matrix -= matrix.mean(0, keepdim=True)
        return matrix

    def read(self, x: Tensor) -> Tensor:
        """Returns what the packed matrix is to be multiplied by for activations [... columns]."""
        return x if self.scales is None else x * self.scales.to(x.dtype)

    def written(self, product: Tensor) -> Tensor:
        """Returns what a product [... rows] of the packed matrix stands for."""
        return product - product.mean(-1, keepdim=True) if self.over_outputs else product

    def moved(self, device: torch.device) -> Beside:
        """Returns the same on another device."""
        return self if self.scales is None else replace(self, scales=self.scales.to(device))

    def entries(self) -> dict[str, Tensor]:
        """Returns what a state dict keeps of it."""
        centred = torch.tensor([self.over_inputs, self.over_outputs], dtype=torch.uint8)
        return {CENTRED: centred} if self.scales is None else {SCALES: self.scales, CENTRED: centred}


def beside_of(entries: Mapping[str, Tensor], columns: int, label: str) -> Beside | None:
    """Returns what a state dict of ours keeps beside a packed matrix, or None.

    Args:
        entries: Of the matrix, by their last names.
        columns: That it has.
        label: What messages call it.

    Raises:
        CorruptCheckpointError: It does not fit the matrix.
    """
    scales, centred = entries.get(SCALES), entries.get(CENTRED)
    if scales is None and centred is None:
        return None
    fits = scales is None or (tuple(scales.shape) == (columns,) and scales.dtype.is_floating_point)
    if not fits or centred is None or tuple(centred.shape) != (2,):
        shapes = {name: tuple(entries[name].shape) for name in ENTRIES if name in entries}
        raise CorruptCheckpointError(
            f"{label} has {columns} columns, and what a state dict keeps beside it is of another matrix: {shapes}.\n"
            "  is this state dict of one model?"
        )
    return Beside(scales, *(bool(flag) for flag in centred.tolist()))
