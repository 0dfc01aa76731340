"""Small results of large weights: computed in float32 inside, rounded once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from transformer_lens.loading.computation import Computed
from transformer_lens.loading.memory.mappings import to_read
from transformer_lens.loading.processing.blocks import contract, inner_dtype, largest_block
from transformer_lens.loading.processing.linear_chain import unrounded
from transformer_lens.loading.processing.shared_sums import SharedSums
from transformer_lens.loading.weights import Held, LazyTensor


def computed(
    like: LazyTensor, function: Callable[[], Tensor], step: str, sources: tuple[LazyTensor, ...], working: int = 0
) -> LazyTensor:
    """Promises what a function returns in the place of another tensor.

    Args:
        like: Has the result's shape, dtype and device.
        function: Returns the result before it is rounded.
        step: What is done, for the report.
        sources: What the function reads.
        working: Bytes that the function takes at its peak, its result included.
    """
    return replace(
        like,
        held=Held.FRESH,
        make=Computed(like.dtype, like.device, function),
        origin=like.origin.then(step),
        sources=sources,
        whole=0,
        working=working,
        joint=None,
    )


def added(
    bias: LazyTensor, weight: LazyTensor, vector: LazyTensor, over: str, step: str, sums: SharedSums | None = None
) -> LazyTensor:
    """Promises ``bias + sum_over vector * weight``.

    Args:
        bias: What is added to.
        weight: What is summed.
        vector: As long as the axis.
        over: Name of the axis.
        step: What is done, for the report.
        sums: Sums over the weight of which this one is the second; None where it is computed alone.
    """
    axis = weight.layout.split().index(over)
    base, matrix, along = unrounded(bias), unrounded(weight), unrounded(vector)

    def total() -> Tensor:
        inner = inner_dtype(matrix.dtype, base.dtype)
        if sums is not None:
            product = sums.of(1, lambda: to_read(matrix), inner)
        else:
            product = contract(to_read(matrix), to_read(along), axis, inner)
        return to_read(base).to(product.device, inner) + product

    working = 2 * largest_block(matrix.shape, inner_dtype(matrix.dtype, base.dtype))
    return computed(bias, total, step, (base, matrix, along), working)
