"""Linear operations on one large tensor, in one pass and one allocation.

Folding scales along an axis, centring takes the mean along an axis away, casting changes the dtype. A chain of them is
evaluated block by block, in float32 inside (float64 stays), straight into the result: there is never a second tensor
of the size of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from transformer_lens.loading.memory.fresh import empty_in_order, order_of
from transformer_lens.loading.weights import Held, LazyTensor

# Small enough that a block stays in a core's cache between one operation and the next.
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Scale:
    """Multiplies along an axis by a vector."""

    axis: str
    by: LazyTensor


@dataclass(frozen=True)
class Center:
    """Takes away the mean along an axis."""

    axis: str


Operation = Scale | Center


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
    """Returns a promise with one more operation; a chain grows, anything else starts one.

    A chain is evaluated with means taken of its source, which is right as long as nothing is scaled along an axis
    after it has been centred along it: there a new chain starts.
    """
    again = (
        isinstance(operation, Scale)
        and isinstance(tensor.make, Chain)
        and (Center(operation.axis) in tensor.make.operations)
    )
    if isinstance(tensor.make, Chain) and not again:
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
    out = empty_in_order(source.shape, order_of(source), chain.dtype, chain.device)
    if source.ndim == 0 or source.numel() == 0 or not chain.operations:
        return out.copy_(source)
    inner = torch.float64 if source.dtype == torch.float64 else inner_dtype(chain.dtype)
    cut = outermost(source)
    steps = _steps(chain, source, cut, inner)
    direct = out.dtype == inner and out.device == source.device
    for part in blocks(source, cut):
        block = source.narrow(cut, part.start, part.stop - part.start)
        target = out.narrow(cut, part.start, part.stop - part.start)
        value = target if direct else torch.empty_like(block, dtype=inner)
        steps[0](block, part, value)
        for step in steps[1:]:
            step(value, part, value)
        if value is not target:
            target.copy_(value)
    return out


# Takes a block, the slice of the cut axis that it is, and where to write the result.
Step = Callable[[Tensor, slice, Tensor], object]


def _steps(chain: Chain, source: Tensor, cut: int, inner: torch.dtype) -> list[Step]:
    """Returns the chain's operations as functions of a block."""
    axes = chain.source.layout.split()
    steps: list[Step] = []
    across: list[Callable[[Tensor], Tensor]] = []
    weight = torch.ones(source.shape[cut], dtype=inner, device=source.device)
    for operation in chain.operations:
        axis = axes.index(operation.axis)
        if isinstance(operation, Scale):
            flat = operation.by.make().to(source.device, inner)
            vector = _along(flat, axis, source.ndim)
            steps.append(_scaling(vector, axis == cut, cut))
            if axis == cut:
                weight = weight * flat
            else:
                across.append(partial(torch.mul, other=vector))
        elif axis != cut:
            steps.append(_centering(axis))
            across.append(partial(_centered, axis=axis))
        else:
            # Operations along other axes commute with a mean along this one: they act on the mean itself.
            mean = _weighted_mean(source, cut, weight)
            for operate in across:
                mean = operate(mean)
            steps.append(_subtracting(mean))
            # What is centred has mean zero; whatever follows along this axis starts from that.
            weight = torch.zeros_like(weight)
    return steps


def _weighted_mean(source: Tensor, cut: int, weight: Tensor) -> Tensor:
    """Returns the mean along the cut axis of ``weight * source``, the axis kept."""
    total: Tensor | None = None
    for part in blocks(source, cut):
        block = source.narrow(cut, part.start, part.stop - part.start).to(weight.dtype)
        summed = torch.matmul(block.movedim(cut, -1), weight[part]).double()
        total = summed if total is None else total + summed
    assert total is not None
    return (total / source.shape[cut]).to(weight.dtype).unsqueeze(cut)


def _centered(value: Tensor, axis: int) -> Tensor:
    return value - value.mean(axis, keepdim=True)


def _scaling(vector: Tensor, is_cut: bool, cut: int) -> Step:
    if is_cut:
        return lambda value, part, out: torch.mul(
            value, vector.narrow(cut, part.start, part.stop - part.start), out=out
        )
    return lambda value, part, out: torch.mul(value, vector, out=out)


def _centering(axis: int) -> Step:
    return lambda value, part, out: torch.sub(value, value.mean(axis, keepdim=True, dtype=out.dtype), out=out)


def _subtracting(mean: Tensor) -> Step:
    return lambda value, part, out: torch.sub(value, mean, out=out)
