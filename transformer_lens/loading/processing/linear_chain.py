"""Linear operations on one large tensor, in one pass and one allocation.

Folding scales along an axis, centring takes the mean along an axis away, casting changes the dtype. A chain of them is
evaluated block by block, in float32 inside (float64 stays), straight into the result: there is never a second tensor
of the size of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from transformer_lens.loading.computation import Computation
from transformer_lens.loading.memory.fresh import empty_in_order, order_of
from transformer_lens.loading.memory.mappings import to_read
from transformer_lens.loading.memory.staging import moved
from transformer_lens.loading.processing.blocks import (
    blocks,
    contract,
    inner_dtype,
    largest_block,
    outermost,
    scratch_for,
)
from transformer_lens.loading.processing.shared_sums import SharedSums
from transformer_lens.loading.weights import Held, LazyTensor, Origin, element_size


@dataclass(frozen=True)
class Scale:
    """Multiplies along an axis by a vector."""

    axis: str
    by: LazyTensor


@dataclass(frozen=True)
class Center:
    """Takes away the mean along an axis.

    Attributes:
        axis: Its name.
        sums: What gives the mean of what one scale along the axis was folded into, with other sums over the same
            matrix; None where it is taken alone.
    """

    axis: str
    sums: SharedSums | None = field(default=None, compare=False, repr=False)

    def shared(self, source: LazyTensor, before: Sequence[Operation]) -> SharedSums | None:
        """Returns the sums if they are over this source, and their first vector is all that it was scaled by before."""
        if self.sums is None or self.sums.matrix is not source or len(before) != 1:
            return None
        (first,) = before
        scaled = isinstance(first, Scale) and first.axis == self.axis and first.by is self.sums.vectors[0]
        return self.sums if scaled else None


Operation = Scale | Center


@dataclass(frozen=True)
class Chain(Computation):
    """Operations on a source, then a dtype and a device."""

    source: LazyTensor
    operations: tuple[Operation, ...]

    def result(self) -> Tensor:
        """Evaluates the chain."""
        return _evaluate(self)

    def reads(self) -> tuple[LazyTensor, ...]:
        """Returns the promises that are kept on the way."""
        return (self.source, *(operation.by for operation in self.operations if isinstance(operation, Scale)))


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
        chain = Chain(tensor.dtype, tensor.device, unrounded(tensor), (operation,))
    return _promise(tensor, chain, tensor.origin.then(step))


def recast(tensor: LazyTensor, dtype: torch.dtype, device: torch.device) -> LazyTensor:
    """Returns a promise of the same numbers in another dtype, on another device; in one pass with what is before."""
    if isinstance(tensor.make, Chain):
        return _promise(tensor, replace(tensor.make, dtype=dtype, device=device), tensor.origin)
    if isinstance(tensor.make, Computation):
        return replace(
            tensor, make=replace(tensor.make, dtype=dtype, device=device), held=Held.FRESH, dtype=dtype, device=device
        )
    return _promise(tensor, Chain(dtype, device, tensor, ()), tensor.origin)


def _promise(tensor: LazyTensor, chain: Chain, origin: Origin) -> LazyTensor:
    """Returns the promise that a chain keeps in the place of a tensor."""
    return replace(
        tensor,
        make=chain,
        held=Held.FRESH,
        origin=origin,
        dtype=chain.dtype,
        device=chain.device,
        sources=chain.reads(),
        whole=0,
        working=_working(chain),
        joint=None,
    )


def _working(chain: Chain) -> int:
    """Returns the bytes of the blocks of a chain, or of what a copy to another device goes through."""
    source = chain.source
    if not chain.operations:
        through = source.device != chain.device and source.dtype != chain.dtype
        return source.numel * element_size(chain.dtype) if through else 0
    inner = inner_dtype(source.dtype, chain.dtype)
    computes_in_place = source.dtype == chain.dtype == inner and source.device == chain.device
    return 0 if computes_in_place else largest_block(source.shape, inner)


def unrounded(tensor: LazyTensor) -> LazyTensor:
    """Returns the promise to compute with: a result of earlier steps is not rounded to a short dtype in between."""
    inner = inner_dtype(tensor.dtype)
    if tensor.dtype == inner or not isinstance(tensor.make, Computation):
        return tensor
    return recast(tensor, inner, tensor.device)


def _evaluate(chain: Chain) -> Tensor:
    made = to_read(chain.source)
    source = moved(made, chain.device)
    if source is not made and source.dtype == chain.dtype and not chain.operations:
        return source
    del made
    out = empty_in_order(source.shape, order_of(source), chain.dtype, chain.device)
    if source.ndim == 0 or source.numel() == 0 or not chain.operations:
        return out.copy_(source)
    inner = inner_dtype(source.dtype, chain.dtype)
    cut = outermost(source)
    steps = _steps(chain, source, cut, inner)
    direct = out.dtype == inner and out.device == source.device
    scratch = None if direct else scratch_for(source, cut, inner)
    for part in blocks(source, cut, read_once=direct and len(steps) == 1):
        length = part.stop - part.start
        block, target = source.narrow(cut, part.start, length), out.narrow(cut, part.start, length)
        value = target if scratch is None else scratch.narrow(cut, 0, length)
        if block.dtype != inner:
            # An operation on two dtypes would make memory of its own for this.
            block = value.copy_(block)
        for step in steps:
            step(block, part, value)
            block = value
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
    last: Tensor | None = None
    for number, operation in enumerate(chain.operations):
        axis = axes.index(operation.axis)
        scaled, last = last, None
        if isinstance(operation, Scale):
            flat = to_read(operation.by).to(source.device, inner)
            vector = _along(flat, axis, source.ndim)
            steps.append(_scaling(vector, axis == cut, cut))
            if axis == cut:
                weight, last = weight * flat, vector
            else:
                across.append(partial(torch.mul, other=vector))
        elif axis != cut:
            steps.append(_centering(axis))
            across.append(partial(_centered, axis=axis))
        else:
            # Operations along other axes commute with a mean along this one: they act on the mean itself.
            sums = operation.shared(chain.source, chain.operations[:number])
            total = contract(source, weight, cut, inner) if sums is None else sums.of(0, lambda: source, inner)
            mean = (total.to(source.device) / source.shape[cut]).unsqueeze(cut)
            for operate in across:
                mean = operate(mean)
            if scaled is None:
                steps.append(_subtracting(mean))
            else:
                steps[-1] = _scaling_and_subtracting(scaled, mean, cut)
            # What is centred has mean zero; whatever follows along this axis starts from that.
            weight = torch.zeros_like(weight)
    return steps


def _along(vector: Tensor, axis: int, ndim: int) -> Tensor:
    return vector.view([-1 if place == axis else 1 for place in range(ndim)])


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


def _scaling_and_subtracting(vector: Tensor, mean: Tensor, cut: int) -> Step:
    """Returns two operations in one pass over a block."""
    minus = -mean
    return lambda value, part, out: torch.addcmul(
        minus, value, vector.narrow(cut, part.start, part.stop - part.start), out=out
    )


def _subtracting(mean: Tensor) -> Step:
    return lambda value, part, out: torch.sub(value, mean, out=out)
