"""Warm and cold files: reads them into the page cache, drops them from it, and tells which of the two they are."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

WARM, COLD = "warm", "cold"
BLOCK = 1 << 24
NEARLY_NOTHING = 0.01
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


def warm(files: Iterable[Path]) -> None:
    """Reads files from front to back, so that they are in the page cache as far as they fit."""
    buffer = bytearray(BLOCK)
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def chill(files: Iterable[Path]) -> float:
    """Drops files from the page cache: of their pages alone where that suffices, else of all that is cached.

    Returns:
        The fraction of their bytes that is cached still: more than nothing where a process has them mapped, or where
        the kernel refuses and this process may not empty its whole cache.
    """
    paths = list(files)
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    if cached_fraction(paths) > NEARLY_NOTHING and os.access(DROP_CACHES, os.W_OK):
        DROP_CACHES.write_text("1\n")
    return cached_fraction(paths)


def cached_fraction(files: Iterable[Path]) -> float:
    """Returns which part of the pages of files is in the page cache, from 0 to 1."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    cached = pages = 0
    for path in files:
        size = path.stat().st_size
        if not size:
            continue
        with open(path, "rb") as file, mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE) as mapping:
            count = -(-size // mmap.PAGESIZE)
            present = ctypes.create_string_buffer(count)
            at = ctypes.c_char.from_buffer(mapping)
            failed = libc.mincore(ctypes.addressof(at), size, present)
            del at
            if failed:
                raise OSError(ctypes.get_errno(), "mincore failed", str(path))
            cached += sum(byte & 1 for byte in present.raw[:count])
            pages += count
    return cached / pages if pages else 0.0
