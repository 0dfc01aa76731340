"""Tensors of a region of a file: mapped privately, or read.

Every call makes a mapping of its own, so two parameters never share memory by way of the file: writing to one (which
copies the page) leaves the file and the other as they are. A mapping ends when its tensor does.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from transformer_lens.loading.errors import CorruptCheckpointError
from transformer_lens.loading.weights import Held, LazyTensor, Origin, element_size


@dataclass(frozen=True)
class Region:
    """A tensor that lies contiguously in a file.

    Attributes:
        path: The file.
        offset: First byte.
        shape: Of the tensor.
        dtype: Of the tensor.
        file_size: Bytes of the file when its header was checked.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    file_size: int

    @property
    def numel(self) -> int:
        """Number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    def map(self) -> Tensor:
        """Maps the region, copy-on-write."""
        if self.numel == 0:
            return torch.empty(self.shape, dtype=self.dtype)
        nbytes = self.numel * element_size(self.dtype)
        start = self.offset - self.offset % mmap.ALLOCATIONGRANULARITY
        with self.path.open("rb") as file:
            # A file that has shrunk since would end the process at the first touch.
            if os.fstat(file.fileno()).st_size != self.file_size:
                raise CorruptCheckpointError(f"{self.path} has changed its size since its header was read.")
            pages = mmap.mmap(file.fileno(), self.offset - start + nbytes, access=mmap.ACCESS_COPY, offset=start)
        flat = torch.frombuffer(pages, dtype=self.dtype, count=self.numel, offset=self.offset - start)
        return flat.view(self.shape)

    def read(self) -> Tensor:
        """Reads the region into memory of its own."""
        out = torch.empty(self.shape, dtype=self.dtype)
        if self.numel == 0:
            return out
        target = memoryview(out.view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.offset)
            done = 0
            while done < len(target):
                count = file.readinto(target[done : done + (64 << 20)])
                if not count:
                    raise CorruptCheckpointError(f"{self.path} ends before byte {self.offset + len(target)}.")
                done += count
        return out

    def promise(self, key: str, io: str) -> LazyTensor:
        """Promises the tensor, mapped or read."""
        return LazyTensor(
            self.shape,
            self.dtype,
            Held.MAPPED if io == "map" else Held.FRESH,
            Origin(key, self.path.name),
            self.map if io == "map" else self.read,
        )
