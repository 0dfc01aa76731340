"""Large tensors in pieces: how they are cut, what is summed over them, and in which dtype."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from transformer_lens.loading.memory.fresh import empty_in_order, order_of
from transformer_lens.loading.weights import element_size

# Small enough that a block stays in a core's cache between one operation and the next.
_BLOCK_BYTES = 1 << 20
# Of what is read once: every block costs a few calls from Python, which threads make one at a time. Sums over more than
# this are taken in float64 from there on.
_ONCE_BYTES = 16 << 20


def inner_dtype(*dtypes: torch.dtype) -> torch.dtype:
    """Returns the dtype that sums and products are taken in: float64 where any of these is, else float32."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


def outermost(tensor: Tensor) -> int:
    """Returns the axis along which memory is cut in blocks: the one of the largest stride."""
    return max(range(tensor.ndim), key=lambda axis: (tensor.shape[axis] > 1, tensor.stride(axis)))


def blocks(tensor: Tensor, axis: int, read_once: bool = False) -> Iterator[slice]:
    """Yields slices of an axis, each of about a MiB of the tensor in float32, or of 16 where each is read only once."""
    length = tensor.shape[axis]
    if length == 0:
        return
    bytes_each = max(1, tensor.numel() // length * 4)
    step = max(1, (_ONCE_BYTES if read_once else _BLOCK_BYTES) // bytes_each)
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


class _Kept(threading.local):
    """A block's worth of memory that a thread uses again and again."""

    def __init__(self) -> None:
        self.memory = torch.empty(0, dtype=torch.uint8)


_kept = _Kept()


def scratch_for(tensor: Tensor, cut: int, inner: torch.dtype) -> Tensor:
    """Returns memory for one block of a tensor, its axes in the same order.

    It is the thread's own, good until the thread asks again. Made for each tensor, it would leave holes between the
    small results that stay, and the C library's heap would grow by most of them.
    """
    shape, order = list(tensor.shape), order_of(tensor)
    shape[cut] = max((part.stop - part.start for part in blocks(tensor, cut)), default=0)
    nbytes = math.prod(shape) * element_size(inner)
    if nbytes > _BLOCK_BYTES or tensor.device.type != "cpu":
        return empty_in_order(shape, order, inner, tensor.device)
    if _kept.memory.numel() < nbytes:
        # What is made in inference mode could not be written to outside.
        with torch.inference_mode(False):
            _kept.memory = torch.empty(_BLOCK_BYTES, dtype=torch.uint8)
    stored = _kept.memory[:nbytes].view(inner).view([shape[axis] for axis in order])
    return stored.permute([order.index(axis) for axis in range(tensor.ndim)])


def contract(weight: Tensor, vector: Tensor, over: int, inner: torch.dtype) -> Tensor:
    """Returns ``sum_over weight * vector`` for a vector that lies along one axis of the weight, block by block."""
    cut = outermost(weight)
    vector = vector.to(weight.device, inner)
    if cut == over:
        return contract_all(weight, vector[None], inner)[0]
    rest = cut if cut < over else cut - 1
    scratch = _scratch(weight, cut, inner)
    pieces = blocks(weight, cut, read_once=scratch is None)
    return torch.cat([_product(_block(weight, cut, part, scratch), over, vector) for part in pieces], dim=rest)


def contract_all(weight: Tensor, vectors: Tensor, inner: torch.dtype) -> Tensor:
    """Returns the sums over a weight's outermost axis with several vectors, stacked, in one pass over the weight.

    Args:
        weight: Any number of axes.
        vectors: [number of sums, length of the outermost axis], of the inner dtype, on the weight's device.
        inner: The dtype in which is multiplied. Blocks are added in float64.
    """
    over = outermost(weight)
    scratch = _scratch(weight, over, inner)
    wide = inner if weight.device.type == "mps" else torch.float64
    shape = [size for axis, size in enumerate(weight.shape) if axis != over]
    totals = torch.zeros([vectors.shape[0], *shape], dtype=wide, device=weight.device)
    for part in blocks(weight, over, read_once=scratch is None):
        block = _block(weight, over, part, scratch)
        # One vector is another, faster kernel than a matrix of one row.
        if vectors.shape[0] == 1:
            totals[0] += _product(block, over, vectors[0, part])
        else:
            totals += _products_outermost(block, over, vectors[:, part])
    return totals.to(inner)


def _scratch(weight: Tensor, cut: int, inner: torch.dtype) -> Tensor | None:
    return None if weight.dtype == inner or weight.numel() == 0 else scratch_for(weight, cut, inner)


def _block(weight: Tensor, cut: int, part: slice, scratch: Tensor | None) -> Tensor:
    block = weight.narrow(cut, part.start, part.stop - part.start)
    return block if scratch is None else scratch.narrow(cut, 0, part.stop - part.start).copy_(block)


def _product(block: Tensor, over: int, vector: Tensor) -> Tensor:
    """Returns ``sum_over block * vector`` without a copy of the block, whatever the order of its axes in memory.

    As it lies in memory a compact block is [outer, over, inner]: what is outside the summed axis, the axis, and what
    is inside.
    """
    order = order_of(block)
    stored = block.permute(order)
    at = order.index(over)
    outer, inside = math.prod(stored.shape[:at]), math.prod(stored.shape[at + 1 :])
    stored = stored.reshape(outer, vector.numel(), inside)
    if inside == 1:
        flat = stored[:, :, 0] @ vector
    elif outer == 1:
        flat = vector @ stored[0]
    else:
        flat = torch.bmm(vector.expand(outer, 1, -1), stored)
    left = [axis for axis in order if axis != over]
    ranks = sorted(left)
    return flat.view([block.shape[axis] for axis in left]).permute([left.index(axis) for axis in ranks])


def _products_outermost(block: Tensor, over: int, vectors: Tensor) -> Tensor:
    """Returns the same with several vectors, where no axis of more than one place is outside the summed one."""
    left = [axis for axis in order_of(block) if axis != over]
    flat = vectors @ block.permute(over, *left).reshape(vectors.shape[1], -1)
    shaped = flat.view([vectors.shape[0], *(block.shape[axis] for axis in left)])
    return shaped.permute(0, *(1 + left.index(axis) for axis in sorted(left)))
