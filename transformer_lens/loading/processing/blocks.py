"""Large tensors in pieces: how they are cut, what is summed over them, and in which dtype."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from transformer_lens.loading.memory.fresh import empty_in_order, order_of
from transformer_lens.loading.weights import element_size

# Small enough that a block stays in a core's cache between one operation and the next.
_BLOCK_BYTES = 1 << 20


def inner_dtype(*dtypes: torch.dtype) -> torch.dtype:
    """Returns the dtype that sums and products are taken in: float64 where any of these is, else float32."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


def outermost(tensor: Tensor) -> int:
    """Returns the axis along which memory is cut in blocks: the one of the largest stride."""
    return max(range(tensor.ndim), key=lambda axis: (tensor.shape[axis] > 1, tensor.stride(axis)))


def blocks(tensor: Tensor, axis: int) -> Iterator[slice]:
    """Yields slices of an axis, each of about a MiB of the tensor in float32."""
    length = tensor.shape[axis]
    if length == 0:
        return
    bytes_each = max(1, tensor.numel() // length * 4)
    step = max(1, _BLOCK_BYTES // bytes_each)
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def largest_block(shape: Sequence[int], inner: torch.dtype) -> int:
    """Returns the bytes that a block of a tensor of this shape may have, whichever of its axes is cut.

    A slice of the outermost axis is not cut further. That axis is the first in most tensors of ours, and where it is
    another it is a long one.
    """
    numel = 1
    for size in shape:
        numel *= size
    each = numel // max(shape[0], 1) * element_size(inner) if shape else 0
    return min(numel * element_size(inner), max(_BLOCK_BYTES, each))


def scratch_for(tensor: Tensor, cut: int, inner: torch.dtype) -> Tensor:
    """Returns memory for one block of a tensor, its axes in the same order.

    It is made once a tensor: the C library's heap would grow by most of the blocks that are made and let go one by one.
    """
    shape = list(tensor.shape)
    shape[cut] = max((part.stop - part.start for part in blocks(tensor, cut)), default=0)
    return empty_in_order(shape, order_of(tensor), inner, tensor.device)


def contract(weight: Tensor, vector: Tensor, over: int, inner: torch.dtype) -> Tensor:
    """Returns ``sum_over weight * vector`` for a vector that lies along one axis of the weight, block by block."""
    cut = outermost(weight)
    vector = vector.to(weight.device, inner)
    scratch = _scratch_for_products(weight, cut, over, inner)
    if cut != over:
        rest = cut if cut < over else cut - 1
        parts = [_product(weight, cut, part, over, vector, scratch) for part in blocks(weight, cut)]
        return torch.cat(parts, dim=rest)
    wide = inner if weight.device.type == "mps" else torch.float64
    shape = [size for axis, size in enumerate(weight.shape) if axis != over]
    total = torch.zeros(shape, dtype=wide, device=weight.device)
    for part in blocks(weight, cut):
        total += _product(weight, cut, part, over, vector[part], scratch)
    return total.to(inner)


def _scratch_for_products(weight: Tensor, cut: int, over: int, inner: torch.dtype) -> Tensor | None:
    """Returns memory for one block of a weight as a product wants it; None where it can take the weight itself."""
    if weight.numel() == 0 or (weight.ndim <= 2 and weight.dtype == inner):
        return None
    scratch = scratch_for(weight, cut, inner)
    if weight.ndim <= 2:
        return scratch
    # With the summed axis innermost; any other order is copied into this one, block by block, by the product itself.
    moved = scratch.movedim(over, -1)
    return empty_in_order(moved.shape, range(moved.ndim), inner, weight.device).movedim(-1, over)


def _product(weight: Tensor, cut: int, part: slice, over: int, vector: Tensor, scratch: Tensor | None) -> Tensor:
    block = weight.narrow(cut, part.start, part.stop - part.start)
    if scratch is not None:
        block = scratch.narrow(cut, 0, part.stop - part.start).copy_(block)
    return torch.matmul(block.movedim(over, -1), vector)
