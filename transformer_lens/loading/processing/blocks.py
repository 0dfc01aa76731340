"""Large tensors in pieces: how they are cut, what is summed over them, and in which dtype."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

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


def contract(weight: Tensor, vector: Tensor, over: int, inner: torch.dtype) -> Tensor:
    """Returns ``sum_over weight * vector`` for a vector that lies along one axis of the weight, block by block."""
    cut = outermost(weight)
    vector = vector.to(weight.device, inner)
    if cut != over:
        rest = cut if cut < over else cut - 1
        return torch.cat([_product(weight, cut, part, over, vector) for part in blocks(weight, cut)], dim=rest)
    wide = inner if weight.device.type == "mps" else torch.float64
    shape = [size for axis, size in enumerate(weight.shape) if axis != over]
    total = torch.zeros(shape, dtype=wide, device=weight.device)
    for part in blocks(weight, cut):
        total += _product(weight, cut, part, over, vector[part])
    return total.to(inner)


def _product(weight: Tensor, cut: int, part: slice, over: int, vector: Tensor) -> Tensor:
    block = weight.narrow(cut, part.start, part.stop - part.start).to(vector.dtype)
    return torch.matmul(block.movedim(over, -1), vector)
