"""8-bit matrices in the layout of bitsandbytes (LLM.int8(), Dettmers et al., 2022), read without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from transformer_lens.loading.errors import QuantizedTensorError
from transformer_lens.loading.quantization.packed import Packed, Run, check_runs, gathered

_PER_STEP = 1.0 / 127.0


@dataclass(frozen=True)
class Packed8bit(Packed):
    """A matrix in 8 bits: row r is ``data[r] * scales[r] / 127``.

    Attributes:
        data: int8 [rows columns]; floating-point numbers where `scales` is None.
        scales: The largest magnitude of each row [rows], float32; None for a matrix that is packed anew for each
            product (``has_fp16_weights``), and is kept as numbers.
    """

    data: Tensor
    scales: Tensor | None

    def __post_init__(self) -> None:
        """Refuses tensors that do not fit each other: who multiplies by them reads as far as the shape says.

        Raises:
            QuantizedTensorError: They do not fit.
        """
        found = (tuple(self.data.shape), None if self.scales is None else tuple(self.scales.shape))
        if found != (self.shape, None if self.scales is None else self.shape[:1]):
            raise QuantizedTensorError(
                f"An 8-bit matrix of {self.shape[0]} x {self.shape[1]} numbers does not have what belongs to it.\n"
                f"  its bytes have the shape {found[0]}, the scales of its rows {found[1]}\n"
                "  They were changed, or are of two matrices: load or pack the model again."
            )

    def dequantized(self) -> Tensor:
        """Returns the numbers [rows columns], float32 or as they are kept."""
        if self.scales is None:
            return self.data.detach().clone()
        return self.data * self.scales.reshape(-1, 1) * _PER_STEP

    def rows(self, runs: Sequence[Run]) -> Packed8bit:
        """Returns some rows with their scales."""
        check_runs(runs, self.shape[0])
        if list(runs) == [(0, self.shape[0])]:
            return self

        def cut(tensor: Tensor) -> Tensor:
            return gathered([tensor.detach()[start:stop] for start, stop in runs])

        data = cut(self.data)
        scales = None if self.scales is None else cut(self.scales)
        return replace(self, shape=(data.shape[0], self.shape[1]), data=data, scales=scales)

    def moved(self, function: Callable[[Tensor], Tensor]) -> Packed8bit:
        """Returns the same with each tensor passed through a function."""
        return replace(self, data=function(self.data), scales=None if self.scales is None else function(self.scales))
