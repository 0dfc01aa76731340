"""Which matrix a parameter of ours is: rows of outputs, columns of inputs, as ``nn.Linear`` keeps it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transformer_lens.loading.quantization.packed import Run

_HEADS = ("head", "kv_head")


@dataclass(frozen=True)
class MatrixOrder:
    """The axes of one of our parameters as rows and columns of a matrix.

    Attributes:
        shape: Of the parameter.
        rows: Places of the axes that outputs run over, outermost first.
        columns: Places of the axes that inputs run over.
    """

    shape: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return math.prod(self.shape[axis] for axis in self.rows), math.prod(self.shape[axis] for axis in self.columns)

    def to_matrix(self, tensor: Tensor) -> Tensor:
        """Returns a parameter [our axes] as a matrix [rows columns]: a view where the storage allows it."""
        return tensor.permute(*self.rows, *self.columns).reshape(self.matrix_shape)

    def from_matrix(self, matrix: Tensor) -> Tensor:
        """Returns a matrix [rows columns] as a parameter [our axes]: a view."""
        apart = matrix.view([self.shape[axis] for axis in (*self.rows, *self.columns)])
        return apart.permute([(*self.rows, *self.columns).index(axis) for axis in range(len(self.shape))])


def matrix_order(axes: str, shape: Sequence[int]) -> MatrixOrder:
    """Returns the matrix that a parameter is.

    The last axis is what comes out and the one before it what goes in; an axis of heads belongs to the one of them
    that runs over a head's dimensions.

    Args:
        axes: Of the parameter, space separated: "head d_model d_head".
        shape: Of the parameter.
    """
    names = axes.split()
    assert len(names) == len(shape) and len(names) in (2, 3), axes
    rows: tuple[int, ...] = (len(names) - 1,)
    columns: tuple[int, ...] = (len(names) - 2,)
    if len(names) == 3:
        assert names[0] in _HEADS, axes
        rows, columns = ((0, *rows), columns) if names[-1] == "d_head" else (rows, (0, *columns))
    return MatrixOrder(tuple(shape), rows, columns)


def rows_taken(
    view: Callable[[Tensor], Tensor], shape: tuple[int, int], transposed: bool, axes: str
) -> list[Run] | None:
    """Returns which rows of a matrix a view takes, in order, as runs of neighbours.

    The view is tried on the numbers of rows and of columns, which takes no memory.

    Args:
        view: From the file's tensor to a parameter of ours; copies nothing.
        shape: (rows, columns) = (outputs, inputs) of the matrix.
        transposed: Whether the file's tensor is [columns rows].
        axes: Of our parameter.

    Returns:
        None where the view takes or moves columns, too.
    """
    rows = torch.arange(shape[0])[:, None].expand(shape)
    columns = torch.arange(shape[1])[None, :].expand(shape)
    row_of, column_of = (view(numbers.t() if transposed else numbers) for numbers in (rows, columns))
    order = matrix_order(axes, row_of.shape)
    if not torch.equal(_along(column_of, order.columns), torch.arange(shape[1])):
        return None
    return runs_of(_along(row_of, order.rows))


def _along(tensor: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Returns the values along some axes, at the first place of the others."""
    for axis in reversed(range(tensor.ndim)):
        if axis not in axes:
            tensor = tensor.select(axis, 0)
    return tensor.reshape(-1)


def runs_of(rows: Tensor) -> list[Run]:
    """Returns ascending or scattered row numbers as runs of neighbours, in order."""
    numbers = rows.reshape(-1)
    if numbers.numel() == 0:
        return []
    breaks = (torch.nonzero(numbers[1:] != numbers[:-1] + 1).reshape(-1) + 1).tolist()
    starts, stops = [0, *breaks], [*breaks, numbers.numel()]
    return [(int(numbers[start]), int(numbers[stop - 1]) + 1) for start, stop in zip(starts, stops)]
