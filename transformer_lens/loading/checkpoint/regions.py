"""Tensors of a region of a file: mapped privately, or read.

Every parameter has a mapping of its own, so two never share memory by way of the file: writing to one (which copies the
page) leaves the file and the other as they are. A mapping ends when its tensor does, and holds no file open.
"""

from __future__ import annotations

import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transformer_lens.loading.checkpoint.private_map import private_map
from transformer_lens.loading.errors import CorruptCheckpointError
from transformer_lens.loading.memory.fresh import empty
from transformer_lens.loading.memory.mappings import mapped
from transformer_lens.loading.weights import Held, LazyTensor, Origin, Span, element_size

_PIECE = 16 << 20
_READERS = 4


@dataclass(frozen=True)
class Region:
    """A tensor that lies in one piece of a file.

    Attributes:
        path: The file.
        offset: First byte.
        shape: Of the tensor.
        dtype: Of the tensor.
        file_size: Bytes of the file when its header was checked.
        stride: Of the tensor, in elements; None where it is contiguous.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    file_size: int
    stride: tuple[int, ...] | None = None

    @property
    def numel(self) -> int:
        """Number of elements that the region spans, those between strided ones included."""
        if self.stride is not None and 0 not in self.shape:
            return 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride))
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def nbytes(self) -> int:
        """Number of bytes that the region spans."""
        return self.numel * element_size(self.dtype)

    @property
    def span(self) -> Span:
        """The bytes of the file."""
        return Span(self.path, self.offset, self.nbytes)

    def map(self) -> Tensor:
        """Maps the region, copy-on-write; where it is only read, the mapping may be another reader's too."""
        return mapped(self, self._map)

    def _map(self) -> Tensor:
        if self.numel == 0:
            return torch.empty(self.shape, dtype=self.dtype)
        start = self.offset - self.offset % mmap.ALLOCATIONGRANULARITY
        with self.path.open("rb") as file:
            # A file that has shrunk since would end the process at the first touch.
            if os.fstat(file.fileno()).st_size != self.file_size:
                raise CorruptCheckpointError(f"{self.path} has changed its size since its header was read.")
            pages: Any = private_map(file.fileno(), self.offset - start + self.nbytes, start)
        return self._shaped(
            torch.frombuffer(pages, dtype=self.dtype, count=self.numel, offset=self.offset - start),
        )

    def read(self) -> Tensor:
        """Reads the region into memory of its own."""
        out = empty((self.numel,), self.dtype, None)
        if self.numel == 0:
            return out.view(self.shape)
        target = memoryview(out.view(torch.uint8).numpy())  # type: ignore[arg-type]
        starts = range(0, len(target), _PIECE)
        with ThreadPoolExecutor(max_workers=min(_READERS, len(starts))) as pool:
            list(pool.map(lambda start: self._fill(target[start : start + _PIECE], start), starts))
        return self._shaped(out)

    def _fill(self, target: memoryview, start: int) -> None:
        """Reads one piece of the region, by a file of its own: pieces are read side by side."""
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.offset + start)
            done = 0
            while done < len(target):
                count = file.readinto(target[done:])
                if not count:
                    raise CorruptCheckpointError(
                        f"{self.path} ends before byte {self.offset + start + len(target)}: it has changed since its "
                        "header was read."
                    )
                done += count

    def _shaped(self, flat: Tensor) -> Tensor:
        return flat.view(self.shape) if self.stride is None else flat.as_strided(self.shape, self.stride)

    def promise(self, key: str, io: str) -> LazyTensor:
        """Promises the tensor, mapped or read."""
        return LazyTensor(
            self.shape,
            self.dtype,
            Held.MAPPED if io == "map" else Held.FRESH,
            Origin(key, self.path.name, span=self.span),
            self.map if io == "map" else self.read,
            whole=0 if io == "map" else self.nbytes,
        )
