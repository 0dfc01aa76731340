"""Promises of packed matrices, and what can be promised of them: rows, numbers, packing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from transformer_lens.loading.quantization import bitsandbytes
from transformer_lens.loading.quantization.beside import Beside
from transformer_lens.loading.quantization.matrices import matrix_order
from transformer_lens.loading.quantization.packed import Packed, Packing, Run
from transformer_lens.loading.weights import Held, LazyTensor, Origin


def packed_promise(
    packing: Packing, dtype: torch.dtype, held: Held, origin: Origin, device: torch.device
) -> LazyTensor:
    """Returns a promise of bitsandbytes' own parameter, whose shape is that of the numbers.

    Args:
        packing: How the matrix is packed.
        dtype: Of the bytes.
        held: Whose memory the bytes are.
        origin: Where they come from.
        device: Where they lie.
    """
    make = lambda: bitsandbytes.as_parameter(packing.make())
    return LazyTensor(packing.shape, dtype, held, origin, make, device=device, packed=packing)


def _packing(promise: LazyTensor) -> Packing:
    assert promise.packed is not None
    return promise.packed


def rows_of(promise: LazyTensor, runs: Sequence[Run], shape: tuple[int, ...], layout: str) -> LazyTensor:
    """Returns a promise of some rows of a packed matrix, seen in our axes.

    Args:
        promise: Of the whole.
        runs: The rows.
        shape: Of the numbers in our axes.
        layout: Our axes.
    """
    packing = _packing(promise)
    rows = sum(stop - start for start, stop in runs)
    whole = list(runs) == [(0, packing.shape[0])]
    part = replace(
        packing,
        compute=replace(packing.compute, shape=(rows, packing.shape[1])),
        nbytes=packing.nbytes * rows // packing.shape[0],
        make=lambda: packing.make().rows(runs),
    )
    steps = promise.origin if whole else promise.origin.then(f"{rows} of {packing.shape[0]} packed rows")
    held = promise.held if len(runs) == 1 else Held.FRESH
    out = packed_promise(part, promise.dtype, held, steps, promise.device)
    return replace(out, shape=shape, layout=layout, sources=() if whole else (promise,))


def dequantized(promise: LazyTensor) -> LazyTensor:
    """Returns a promise of the numbers of a packed matrix, in the axes that the promise has."""
    packing = _packing(promise)
    order = matrix_order(promise.layout, promise.shape) if promise.layout else None

    def make() -> Tensor:
        matrix = packing.make().dequantized()
        if packing.beside is not None:
            matrix = packing.beside().numbers(matrix)
        return matrix if order is None else order.from_matrix(matrix)

    return replace(
        promise,
        dtype=packing.number_dtype,
        held=Held.FRESH,
        packed=None,
        make=make,
        origin=promise.origin.then("dequantized"),
        sources=(promise,),
    )


def as_in_file(promise: LazyTensor, transposed: bool) -> LazyTensor:
    """Returns a promise of the numbers of a whole packed matrix as a file of numbers would hold them.

    Args:
        promise: Packed, [outputs inputs].
        transposed: Whether the file's layout is [inputs outputs].
    """
    numbers = dequantized(promise)
    return transposed_numbers(numbers) if transposed else numbers


def transposed_numbers(numbers: LazyTensor) -> LazyTensor:
    """Returns a promise of a matrix of numbers, transposed: a view."""
    return numbers.view(lambda tensor: tensor.t(), numbers.shape[::-1], "")


def repacked(
    promise: LazyTensor, change: Callable[[Packed], Packed], held: Held, device: torch.device | None = None
) -> LazyTensor:
    """Returns a promise of the same matrix with its tensors changed: copied, or moved to another device."""
    packing = _packing(promise)
    changed = replace(packing, make=lambda: change(packing.make()))
    out = packed_promise(changed, promise.dtype, held, promise.origin, device or promise.device)
    return replace(out, shape=promise.shape, layout=promise.layout, sources=(promise,))


def with_beside(promise: LazyTensor, beside: Callable[[], Beside], nbytes: int) -> LazyTensor:
    """Returns a promise of a packed matrix to which something is done beside its bytes; its parameter stays what it is.

    Args:
        promise: Packed.
        beside: What is done.
        nbytes: That it takes.
    """
    packing = _packing(promise)
    assert packing.beside is None, promise.origin
    changed = replace(packing, beside=beside, nbytes=packing.nbytes + nbytes)
    out = packed_promise(changed, promise.dtype, promise.held, promise.origin, promise.device)
    return replace(out, shape=promise.shape, layout=promise.layout, sources=promise.sources)


def owned(packed: Packed) -> Packed:
    """Returns the same matrix in memory of its own."""
    return packed.moved(lambda tensor: tensor.detach().clone())


def moved(promise: LazyTensor, device: torch.device) -> LazyTensor:
    """Returns a promise of a packed matrix on another device, its scales with it."""
    return repacked(promise, lambda packed: packed.moved(lambda tensor: tensor.to(device)), Held.FRESH, device)
