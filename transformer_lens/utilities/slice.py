"""A selection along one axis, such as the position axis."""

from typing import Literal, Union

import numpy as np
import torch
from torch import Tensor

from transformer_lens.utilities.tensors import to_numpy  # noqa: F401  upstream has it here

SliceInput = (
    int
    | tuple[int]
    | tuple[int | None, int | None]
    | tuple[int | None, int | None, int | None]
    | list[int]
    | Tensor
    | np.ndarray
    | None
)


_Range = slice


class Slice:
    """Selects along an axis: all of it, one index, a range or several indices.

    Attributes:
        slice: What indexes the axis: a ``slice``, an int or an array of ints.
        mode: "identity" (all; the axis stays), "int" (one; the axis goes), "slice" or "array" (the axis stays).
    """

    slice: int | _Range | np.ndarray
    mode: Literal["identity", "int", "slice", "array"]

    def __init__(self, input_slice: SliceInput | _Range = None) -> None:
        """Reads the selection.

        Args:
            input_slice: None for all; an int for one; a tuple, the arguments of ``slice(...)``, or a ``slice`` itself
                for a range; a list, tensor or array of ints for several.

        Raises:
            ValueError: It is none of these.
        """
        if input_slice is None:
            self.slice, self.mode = slice(None), "identity"
        elif isinstance(input_slice, tuple):
            self.slice, self.mode = slice(*input_slice), "slice"
        elif isinstance(input_slice, _Range):
            self.slice, self.mode = input_slice, "slice"
        elif isinstance(input_slice, (int, np.integer)):
            self.slice, self.mode = input_slice, "int"
        elif isinstance(input_slice, Tensor):
            self.slice, self.mode = input_slice.detach().cpu().numpy(), "array"
        elif isinstance(input_slice, (list, np.ndarray)):
            self.slice, self.mode = np.asarray(input_slice), "array"
        else:
            raise ValueError(f"cannot select by {input_slice!r}: give None, an int, a tuple, or a list of ints")

    def apply(self, tensor: Tensor, dim: int = 0) -> Tensor:
        """Selects from `tensor` along `dim`.

        Args:
            tensor: Any tensor with that axis.
            dim: The axis; negative counts from the end.

        Returns:
            A view, except by several indices, which copies.
        """
        index: list[int | _Range | Tensor] = [slice(None)] * tensor.ndim
        if isinstance(self.slice, np.ndarray):
            index[dim] = torch.as_tensor(self.slice, device=tensor.device)
        else:
            index[dim] = self.slice
        return tensor[tuple(index)]

    def indices(self, max_ctx: int | None = None) -> np.ndarray:
        """Lists the selected indices of an axis.

        Args:
            max_ctx: Length of the axis; not needed for a single index.

        Raises:
            ValueError: `max_ctx` is needed and not given.
        """
        if isinstance(self.slice, int):
            return np.array([self.slice], dtype=np.int64)
        if max_ctx is None:
            raise ValueError("max_ctx must be given unless the slice is a single index")
        return np.asarray(np.arange(max_ctx)[self.slice])

    def __repr__(self) -> str:
        return f"Slice: {self.slice} Mode: {self.mode} "

    @classmethod
    def unwrap(cls, slice_input: Union["Slice", SliceInput]) -> "Slice":
        """Makes a `Slice` of what may be one already; an int becomes a list of one, so that its axis stays."""
        if isinstance(slice_input, Slice):
            return slice_input
        return cls([slice_input] if isinstance(slice_input, int) else slice_input)
