"""Linear operations on one large tensor, in one pass and one allocation.

Folding scales along an axis, centring takes the mean along an axis away, casting changes the dtype. A chain of them is
evaluated block by block, in float32 inside (float64 stays), straight into the result: there is never a second tensor
of the size of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Union

import torch
from torch import Tensor

from transformer_lens.loading.memory.fresh import empty_in_order, order_of
from transformer_lens.loading.weights import Held, LazyTensor

_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True)
class Scale:
    """Multiplies along an axis by a vector."""

    axis: str
    by: LazyTensor


@dataclass(frozen=True)
class Center:
    """Takes away the mean along an axis."""

    axis: str


Operation = Union[Scale, Center]


@dataclass(frozen=True)
class Chain:
    """A promise's `make`: operations on a source, then a dtype and a device."""

    source: LazyTensor
    operations: tuple[Operation, ...]
    dtype: torch.dtype
    device: torch.device

    def __call__(self) -> Tensor:
        """Evaluates the chain into new memory."""
        return _evaluate(self)


def inner_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype that sums and products are taken in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def then(tensor: LazyTensor, operation: Operation, step: str) -> LazyTensor:
    """Returns a promise with one more operation; a chain grows, anything else starts one."""
    if isinstance(tensor.make, Chain):
        chain = replace(tensor.make, operations=(*tensor.make.operations, operation))
    else:
        chain = Chain(tensor, (operation,), tensor.dtype, tensor.device)
    return replace(tensor, make=chain, held=Held.FRESH, origin=tensor.origin.then(step), sources=(chain.source,))


def recast(tensor: LazyTensor, dtype: torch.dtype, device: torch.device) -> LazyTensor:
    """Returns a promise of the same numbers in another dtype, on another device; in one pass with what is before."""
    if isinstance(tensor.make, Chain):
        chain = replace(tensor.make, dtype=dtype, device=device)
    else:
        chain = Chain(tensor, (), dtype, device)
    return replace(tensor, make=chain, held=Held.FRESH, dtype=dtype, device=device, sources=(chain.source,))


def blocks(tensor: Tensor, axis: int) -> Iterator[slice]:
    """Yields slices of an axis, each of a few MiB of the tensor."""
    length = tensor.shape[axis]
    if length == 0:
        return
    bytes_each = max(1, tensor.numel() // length * 4)
    step = max(1, _BLOCK_BYTES // bytes_each)
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def outermost(tensor: Tensor) -> int:
    """Returns the axis along which memory is cut in blocks: the one of the largest stride."""
    return max(range(tensor.ndim), key=lambda axis: (tensor.shape[axis] > 1, tensor.stride(axis)))


def _along(vector: Tensor, axis: int, ndim: int) -> Tensor:
    return vector.view([-1 if place == axis else 1 for place in range(ndim)])


def _evaluate(chain: Chain) -> Tensor:
    source = chain.source.make()
    axes = chain.source.layout.split()
    out = empty_in_order(source.shape, order_of(source), chain.dtype, chain.device)
    if source.ndim == 0 or source.numel() == 0:
        return out.copy_(source)
    if not chain.operations:
        return out.copy_(source)
    inner = inner_dtype(chain.dtype if chain.dtype.is_floating_point else source.dtype)
    if source.dtype == torch.float64:
        inner = torch.float64
    cut = outermost(source)
    steps: list[Callable[[Tensor, slice], Tensor]] = []
    for operation in chain.operations:
        axis = axes.index(operation.axis)
        if isinstance(operation, Scale):
            vector = _along(operation.by.make().to(source.device, inner), axis, source.ndim)
            steps.append(_scaling(vector, axis == cut, cut))
        elif axis != cut:
            steps.append(_centering(axis))
        else:
            mean = _mean_over_blocks(source, cut, steps, inner)
            steps.append(_subtracting(mean))
    for part in blocks(source, cut):
        block = source.narrow(cut, part.start, part.stop - part.start)
        target = out.narrow(cut, part.start, part.stop - part.start)
        if target.dtype == inner and target.device == source.device:
            target.copy_(block)
            value = target
        else:
            value = block.to(inner) if block.dtype != inner else block.clone()
        for step in steps:
            value = step(value, part)
        if value is not target:
            target.copy_(value)
    return out


def _mean_over_blocks(
    source: Tensor, cut: int, steps: list[Callable[[Tensor, slice], Tensor]], inner: torch.dtype
) -> Tensor:
    """Returns the mean along the axis that blocks are cut along, of what the steps so far give."""
    total: Tensor | None = None
    for part in blocks(source, cut):
        value = source.narrow(cut, part.start, part.stop - part.start).to(inner, copy=True)
        for step in steps:
            value = step(value, part)
        summed = value.sum(cut, keepdim=True, dtype=torch.float64)
        total = summed if total is None else total + summed
    assert total is not None
    return (total / source.shape[cut]).to(inner)


def _scaling(vector: Tensor, is_cut: bool, cut: int) -> Callable[[Tensor, slice], Tensor]:
    if is_cut:
        return lambda value, part: value.mul_(vector.narrow(cut, part.start, part.stop - part.start))
    return lambda value, part: value.mul_(vector)


def _centering(axis: int) -> Callable[[Tensor, slice], Tensor]:
    return lambda value, part: value.sub_(value.mean(axis, keepdim=True))


def _subtracting(mean: Tensor) -> Callable[[Tensor, slice], Tensor]:
    return lambda value, part: value.sub_(mean)
