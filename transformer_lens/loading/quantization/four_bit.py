"""4-bit matrices in the layout of bitsandbytes, read without it.

Two numbers a byte, the first in the high bits; each is an index into a table of 16, times the scale ("absmax") of its
block. Nested scales are bytes themselves: indices into a table of 256, times a scale of their own, plus an offset
(QLoRA, Dettmers et al., 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from transformer_lens.loading.errors import QuantizedTensorError
from transformer_lens.loading.quantization.packed import Packed, Run, check_runs, gathered

# Numbers that are unpacked at once.
_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class NestedScales:
    """What packed scales are read with.

    Attributes:
        absmax: A scale of each block of scales [blocks], float32.
        code: The table [256], float32.
        blocksize: Scales in a block.
        offset: Added to every scale; a tensor without axes.
        dtype: What bitsandbytes has recorded as the dtype of the scales.
    """

    absmax: Tensor
    code: Tensor
    blocksize: int
    offset: Tensor
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Packed4bit(Packed):
    """A matrix in 4 bits.

    Attributes:
        data: The bytes, in whatever dtype stores them.
        absmax: A scale of each block [blocks]: float32, or bytes where nested.
        code: The table [16], float32.
        blocksize: Numbers in a block; blocks run on over the ends of rows.
        quant_type: "nf4" or "fp4".
        dtype: What the matrix was packed from, and is unpacked to.
        nested: What packed scales are read with.
    """

    data: Tensor
    absmax: Tensor
    code: Tensor
    blocksize: int
    quant_type: str
    dtype: torch.dtype
    nested: NestedScales | None = None

    def __post_init__(self) -> None:
        """Refuses tensors that do not fit each other: who multiplies by them reads as far as the shape says.

        Raises:
            QuantizedTensorError: They do not fit.
        """
        rows, columns = self.shape
        blocks = -(-rows * columns // self.blocksize)
        sizes = {
            "bytes": (self.data.numel() * self.data.element_size(), (rows * columns + 1) // 2),
            "scales": (tuple(self.absmax.shape), (blocks,)),
            "numbers in its table": (tuple(self.code.shape), (16,)),
        }
        if self.nested is not None:
            own = (-(-blocks // self.nested.blocksize),)
            sizes["scales of scales"] = (tuple(self.nested.absmax.shape), own)
            sizes["numbers in the table of its scales"] = (tuple(self.nested.code.shape), (256,))
        wrong = [f"{what}: {found}, not {wanted}" for what, (found, wanted) in sizes.items() if found != wanted]
        if wrong:
            raise QuantizedTensorError(
                f"A 4-bit matrix of {rows} x {columns} numbers does not have what belongs to it.\n  "
                + "\n  ".join(wrong)
                + "\n  Its bytes and scales were changed, or are of two matrices: load or pack the model again."
            )

    def scales(self) -> Tensor:
        """Returns the scale of each block [blocks], float32."""
        if self.nested is None:
            return self.absmax
        codes = self.nested.code[self.absmax.reshape(-1).int()]
        own = self.nested.absmax.repeat_interleave(self.nested.blocksize)[: codes.numel()]
        return codes * own + self.nested.offset

    def dequantized(self) -> Tensor:
        """Returns the numbers [rows columns], bit for bit what bitsandbytes makes of them."""
        rows, columns = self.shape
        count = rows * columns
        stored = self._bytes()
        # Both numbers of each of the 256 bytes.
        byte = torch.arange(256, device=stored.device)
        pairs = torch.stack([self.code[byte >> 4], self.code[byte & 15]], dim=1)
        scales = self.scales()
        out = torch.empty(count, dtype=self.dtype, device=stored.device)
        step = max(1, _AT_ONCE // self.blocksize) * self.blocksize
        for start in range(0, count, step):
            stop = min(count, start + step)
            numbers = pairs[stored[start // 2 : (stop + 1) // 2].int()].reshape(-1)[: stop - start]
            by_block = scales[start // self.blocksize : -(-stop // self.blocksize)]
            spread = by_block.repeat_interleave(self.blocksize)[: stop - start]
            out[start:stop] = numbers.mul_(spread)
        return out.view(rows, columns)

    def rows(self, runs: Sequence[Run]) -> Packed4bit:
        """Returns some rows with their scales. Nested scales whose own blocks are cut become plain ones, exactly."""
        columns = self.shape[1]
        shape = (sum(stop - start for start, stop in runs), columns)
        check_runs(runs, self.shape[0])
        cut_rows = [
            row
            for row in (*(start for start, _ in runs), *(stop for _, stop in runs[:-1]))
            if row * columns % self.blocksize
        ]
        assert not cut_rows, f"row {cut_rows} lies inside a block of {self.blocksize} numbers with one scale"
        if list(runs) == [(0, self.shape[0])]:
            return self
        stored = self._bytes()
        data = gathered([stored[start * columns // 2 : (stop * columns + 1) // 2] for start, stop in runs])
        data = data.view(self.data.dtype).reshape(-1, 1)
        blocks = [(start * columns // self.blocksize, -(-stop * columns // self.blocksize)) for start, stop in runs]

        def cut(scales: Tensor) -> Tensor:
            return gathered([scales[start:stop] for start, stop in blocks])

        if self.nested is None:
            return replace(self, shape=shape, data=data, absmax=cut(self.absmax))
        group, last = self.nested.blocksize, self.absmax.numel()
        *before, end = [stop for _, stop in blocks]
        # What follows a group that is cut would be read with that group's scale: only the last run may end in one.
        are_whole = not any(edge % group for edge in (*(start for start, _ in blocks), *before))
        if are_whole and (end % group == 0 or end == last):
            own = gathered([self.nested.absmax[start // group : -(-stop // group)] for start, stop in blocks])
            return replace(
                self, shape=shape, data=data, absmax=cut(self.absmax), nested=replace(self.nested, absmax=own)
            )
        attributes = {**self.attributes, "compress_statistics": False} if self.attributes else self.attributes
        # Scales of the whole matrix are not kept: a slice would hold on to them.
        scales = cut(self.scales()).clone()
        return replace(self, shape=shape, data=data, absmax=scales, nested=None, attributes=attributes)

    def moved(self, function: Callable[[Tensor], Tensor]) -> Packed4bit:
        """Returns the same with each tensor passed through a function."""
        nested = self.nested
        if nested is not None:
            nested = replace(
                nested, absmax=function(nested.absmax), code=function(nested.code), offset=function(nested.offset)
            )
        return replace(
            self, data=function(self.data), absmax=function(self.absmax), code=function(self.code), nested=nested
        )

    def _bytes(self) -> Tensor:
        """Returns the bytes in a row, a view."""
        flat = self.data.detach().reshape(-1)
        return flat if flat.dtype == torch.uint8 else flat.view(torch.uint8)
