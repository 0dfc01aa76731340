"""Sums of one large tensor with several vectors, all in one pass over it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor

from transformer_lens.loading.memory.mappings import to_read
from transformer_lens.loading.processing.blocks import contract, contract_all, outermost
from transformer_lens.loading.weights import LazyTensor


class SharedSums:
    """``sum_over matrix * vector`` for several vectors along one axis of a matrix.

    Who asks first computes all, where that takes one pass; what is not asked for yet waits, and is handed out once. A
    matrix that is folded and its bias are kept one after the other: what waits is some vectors.
    """

    def __init__(self, matrix: LazyTensor, over: str, vectors: tuple[LazyTensor, ...]) -> None:
        """Creates sums of which none is computed.

        Args:
            matrix: What is summed.
            over: Name of the axis.
            vectors: Each as long as the axis.
        """
        self.matrix, self.vectors = matrix, vectors
        self._axis = matrix.layout.split().index(over)
        self._waiting: dict[tuple[int, torch.dtype], Tensor] = {}
        # Two threads of a load may ask at once.
        self._asked = threading.Lock()

    def of(self, place: int, matrix: Callable[[], Tensor], inner: torch.dtype) -> Tensor:
        """Returns the sum with one of the vectors, on the device of whoever computed it.

        Args:
            place: Number of the vector.
            matrix: Returns the matrix's tensor; called only if the sum does not wait.
            inner: The dtype in which is multiplied.
        """
        with self._asked:
            if (place, inner) not in self._waiting:
                tensor = matrix()
                if outermost(tensor) != self._axis:
                    return contract(tensor, to_read(self.vectors[place]), self._axis, inner)
                vectors = torch.stack([to_read(vector).to(tensor.device, inner) for vector in self.vectors])
                for number, total in enumerate(contract_all(tensor, vectors, inner)):
                    self._waiting[number, inner] = total
            return self._waiting.pop((place, inner))
