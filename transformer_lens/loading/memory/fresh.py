"""Memory for results, in the order of axes in which they will be multiplied."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def order_of(tensor: Tensor) -> tuple[int, ...]:
    """Returns a tensor's axes from outermost to innermost in memory."""
    return tuple(sorted(range(tensor.ndim), key=lambda axis: (-tensor.stride(axis), axis)))


def empty_in_order(
    shape: Sequence[int], order: Sequence[int], dtype: torch.dtype, device: torch.device | None
) -> Tensor:
    """Allocates a compact tensor whose axes lie in memory in the given order; its values are not set."""
    stored = torch.empty([shape[axis] for axis in order], dtype=dtype, device=device)
    return stored.permute([list(order).index(axis) for axis in range(len(shape))])
