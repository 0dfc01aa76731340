"""Changes of one tensor by an adapter, as promises: low-rank products, trained rows, biases.

Products are taken in float64 (float32 where a device has none), block by block, added to the base there, and rounded
once. Neither autocast nor a lowered precision of matrix products touches float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from transformer_lens.loading.memory.fresh import empty
from transformer_lens.loading.weights import Held, LazyTensor

# Numbers of a block: about 1 MiB in float64.
_BLOCK = 1 << 17


@dataclass(frozen=True)
class LowRank:
    """One low-rank change: ``scale * up @ down``, and what DoRA does to the sum.

    Attributes:
        down: [rank inputs].
        up: [outputs rank].
        scale: Multiplies the product.
        magnitude: DoRA's length of each output's weights, [outputs]; None without DoRA.
    """

    down: LazyTensor
    up: LazyTensor
    scale: float
    magnitude: LazyTensor | None = None

    @property
    def parts(self) -> tuple[LazyTensor, ...]:
        """All of its tensors."""
        return (self.down, self.up, *(() if self.magnitude is None else (self.magnitude,)))


def wide_dtype(*dtypes: torch.dtype) -> torch.dtype:
    """Returns the dtype that a changed tensor has: float64 where one of these is, else float32."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


def with_low_rank(base: LazyTensor, changes: Sequence[LowRank], transposed: bool, step: str) -> LazyTensor:
    """Promises a matrix with low-rank changes added.

    ``W' = W + sum scale * up @ down``; with DoRA ``W'`` is then scaled so that the weights of each output have the
    length that the magnitudes say.

    Args:
        base: [outputs inputs]; left as it is.
        changes: What is added. DoRA stands alone.
        transposed: Whether the base is [inputs outputs].
        step: What is done, for the report.
    """
    parts = tuple(part for change in changes for part in change.parts)
    return replace(
        base,
        dtype=wide_dtype(base.dtype, *(part.dtype for part in parts)),
        held=Held.FRESH,
        make=partial(_sum, base, tuple(changes), transposed),
        origin=base.origin.then(step),
        sources=(base, *parts),
        whole=0,
        # A block of the sum and of the change, and the factors, all in float64.
        working=3 * 8 * _BLOCK + 8 * sum(part.numel for part in parts),
    )


def _sum(base: LazyTensor, changes: Sequence[LowRank], transposed: bool) -> Tensor:
    with torch.no_grad():
        weight = base.make().detach()
        dtype = wide_dtype(base.dtype, *(part.dtype for change in changes for part in change.parts))
        out = empty(weight.shape, dtype, weight.device)
        factors = [_factors(change, transposed, weight.device) for change in changes]
        magnitude = changes[0].magnitude if changes else None
        lengths = None if magnitude is None else _wide(magnitude.make().reshape(-1), weight.device)
        squares: Tensor | None = None
        step = max(1, _BLOCK // max(weight.shape[1], 1))
        for start in range(0, weight.shape[0], step):
            rows = slice(start, min(start + step, weight.shape[0]))
            block = _wide(weight[rows], weight.device)
            for left, right in factors:
                block = block + left[rows] @ right
            if lengths is not None and not transposed:
                block = block * (lengths[rows] / block.square().sum(1).sqrt())[:, None]
            if lengths is not None and transposed:
                squares = block.square().sum(0) if squares is None else squares + block.square().sum(0)
            out[rows] = block
        if lengths is not None and squares is not None:
            # The length of an output's weights is known only when the last row is there.
            scale = lengths / squares.sqrt()
            for start in range(0, weight.shape[0], step):
                rows = slice(start, min(start + step, weight.shape[0]))
                block = _wide(weight[rows], weight.device)
                for left, right in factors:
                    block = block + left[rows] @ right
                out[rows] = block * scale
    return out


def _factors(change: LowRank, transposed: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns the two matrices whose product lies as the base does, the scale in the second."""
    down, up = _wide(change.down.make(), device), _wide(change.up.make(), device)
    return (down.t(), up.t() * change.scale) if transposed else (up, down * change.scale)


def _wide(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.detach().to(device, torch.float32 if device.type == "mps" else torch.float64)


def with_rows(base: LazyTensor, rows: Sequence[int], values: LazyTensor, step: str) -> LazyTensor:
    """Promises a table with some of its rows replaced.

    Args:
        base: [rows columns]; left as it is.
        rows: Which.
        values: [len(rows) columns].
        step: What is done, for the report.
    """
    dtype = base.dtype if values.dtype == base.dtype else wide_dtype(base.dtype, values.dtype)

    def make() -> Tensor:
        with torch.no_grad():
            table = base.make().detach()
            out = empty(table.shape, dtype, table.device).copy_(table)
            out[torch.tensor(list(rows), dtype=torch.int64, device=table.device)] = values.make().detach().to(out)
        return out

    origin = base.origin.then(step)
    sources = (base, values)
    return replace(base, dtype=dtype, held=Held.FRESH, make=make, origin=origin, sources=sources, whole=0)


def with_sum(base: LazyTensor, terms: Sequence[tuple[float, LazyTensor]], step: str) -> LazyTensor:
    """Promises a vector with others added, each multiplied by a number.

    Args:
        base: Left as it is.
        terms: Numbers, and vectors of the same length.
        step: What is done, for the report.
    """
    dtype = wide_dtype(base.dtype, *(term.dtype for _, term in terms))

    def make() -> Tensor:
        with torch.no_grad():
            vector = base.make().detach()
            total = _wide(vector, vector.device)
            for scale, term in terms:
                total = total + scale * _wide(term.make(), vector.device)
            return total.to(dtype)

    origin = base.origin.then(step)
    sources = (base, *(term for _, term in terms))
    return replace(base, dtype=dtype, held=Held.FRESH, make=make, origin=origin, sources=sources, whole=0)
