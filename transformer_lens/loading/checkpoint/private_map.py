"""A private mapping of a file that keeps no file open.

Python's ``mmap`` holds a duplicate of the descriptor as long as the mapping lives (before 3.13, which can be told not
to): a model of a thousand tensors would use up what a process may open. A mapping itself needs no descriptor.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import weakref
from functools import lru_cache
from typing import Any

_FAILED = ctypes.c_void_p(-1).value


def private_map(descriptor: int, nbytes: int, start: int) -> Any:
    """Maps part of a file copy-on-write.

    Args:
        descriptor: Of the file, open for reading; may be closed afterwards.
        nbytes: Length of the mapping.
        start: First byte, a multiple of ``mmap.ALLOCATIONGRANULARITY``.

    Returns:
        A writable buffer; the mapping ends when the last reference to it does.

    Raises:
        OSError: The system refuses.
    """
    if sys.version_info >= (3, 13):
        return mmap.mmap(descriptor, nbytes, access=mmap.ACCESS_COPY, offset=start, trackfd=False)
    if sys.platform == "win32":
        return mmap.mmap(descriptor, nbytes, access=mmap.ACCESS_COPY, offset=start)
    return _mapped_by_the_c_library(descriptor, nbytes, start)


def _mapped_by_the_c_library(descriptor: int, nbytes: int, start: int) -> Any:
    library = _c_library()
    # The protection and flags that ACCESS_COPY stands for.
    address = library.mmap(None, nbytes, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE, descriptor, start)
    if address == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, f"{nbytes} bytes cannot be mapped: {os.strerror(number)}")
    buffer = (ctypes.c_ubyte * nbytes).from_address(address)
    # At the interpreter's end tensors may outlive finalizers; the system unmaps then.
    weakref.finalize(buffer, library.munmap, address, nbytes).atexit = False
    return buffer


@lru_cache(maxsize=1)
def _c_library() -> Any:
    library = ctypes.CDLL(None, use_errno=True)
    integer, address, size, offset = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64
    library.mmap.argtypes = (address, size, integer, integer, integer, offset)
    library.mmap.restype = address
    library.munmap.argtypes = (address, size)
    library.munmap.restype = integer
    return library
