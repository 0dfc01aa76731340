"""Products of a vector and a large weight, added to a bias: block by block, in float32 inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from transformer_lens.loading.processing.linear_chain import blocks, inner_dtype, outermost
from transformer_lens.loading.weights import Held, LazyTensor


def contract(weight: Tensor, vector: Tensor, over: int, inner: torch.dtype) -> Tensor:
    """Returns ``sum_over weight * vector`` for a vector that lies along one axis of the weight."""
    cut = outermost(weight)
    vector = vector.to(weight.device, inner)
    pieces: list[Tensor] = []
    for part in blocks(weight, cut):
        block = weight.narrow(cut, part.start, part.stop - part.start).to(inner)
        pieces.append(torch.matmul(block.movedim(over, -1), vector[part] if cut == over else vector))
    if cut == over:
        return torch.stack(pieces).sum(0, dtype=torch.float64).to(inner)
    return torch.cat(pieces, dim=cut if cut < over else cut - 1)


def added(
    bias: LazyTensor, weight: LazyTensor, vector: LazyTensor, over: str, step: str, centered: bool = False
) -> LazyTensor:
    """Promises ``bias + sum_over vector * weight``.

    With `centered`, the mean of the vector is taken away first, which is the same as centring the weight.
    """
    axis = weight.layout.split().index(over)

    def make() -> Tensor:
        base = bias.make()
        inner = torch.float64 if weight.dtype == torch.float64 else inner_dtype(base.dtype)
        along = vector.make().to(inner)
        if centered:
            along = along - along.mean()
        product = contract(weight.make(), along, axis, inner)
        return (base.to(inner) + product.to(base.device)).to(bias.dtype)

    return computed(bias, make, step, (bias, weight, vector))


def computed(like: LazyTensor, make: Callable[[], Tensor], step: str, sources: tuple[LazyTensor, ...]) -> LazyTensor:
    """Promises a new tensor in the place of another."""
    return replace(like, held=Held.FRESH, make=make, origin=like.origin.then(step), sources=sources)
