"""Writing an entry: tensor by tensor from the parameters, to a file that nobody sees before it is whole."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from transformer_lens.loading.checkpoint.safetensors import name_of_dtype
from transformer_lens.loading.memory.fresh import order_of
from transformer_lens.loading.memory.processed.entry_file import KIND, NO_DIGEST, header_digest
from transformer_lens.loading.memory.processed.folder import LOCK, remove, sweep, temporary_path
from transformer_lens.loading.memory.processed.key import Key
from transformer_lens.loading.weights import bytes_of

_PIECE = 16 << 20
_ALIGNMENT = 64


def write_entry(path: Path, key: Key, tensors: Mapping[str, Tensor], label: str, dtype: str) -> None:
    """Writes an entry; it is there as a whole, or not at all.

    The header is written twice: its checksums are known at the end, and take the room that zeros held.

    Args:
        path: Of the entry, in a folder that is there. An entry that is there is replaced, and stays as it was for
            whoever has mapped it.
        key: What it is for.
        tensors: Parameters, on any device.
        label: The checkpoint.
        dtype: Of the parameters.

    Raises:
        OSError: There is no room or no permission. What was there before is there still.
    """
    sweep(path.parent)
    stored = {name: _in_order(tensor) for name, tensor in tensors.items()}
    nbytes = sum(bytes_of(tensor) for tensor in tensors.values())
    if shutil.disk_usage(path.parent).free < nbytes:
        raise OSError(errno.ENOSPC, f"an entry takes {nbytes} bytes, and the disk has not as many")
    said = {
        "format": "pt",
        "kind": KIND,
        "label": label,
        "dtype": dtype,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "place": json.dumps(key.place),
        "state": json.dumps(key.state),
    }
    temporary = temporary_path(path)
    try:
        with temporary.open("xb") as file:
            file.write(_header(tensors, stored, said, dict.fromkeys(tensors, 0)))
            checksums = {name: _write(file, tensor) for name, tensor in stored.items()}
            file.seek(0)
            file.write(_header(tensors, stored, said, checksums))
            file.flush()
            _sync(file.fileno())
        os.replace(temporary, path)
    finally:
        remove(temporary)
    with contextlib.suppress(OSError):
        _sync_folder(path.parent)


def _in_order(tensor: Tensor) -> Tensor:
    """Returns a tensor with its axes in the order in which they lie in memory: a view, contiguous if it is compact."""
    return tensor.detach().permute(order_of(tensor))


def _header(
    tensors: Mapping[str, Tensor], stored: Mapping[str, Tensor], said: Mapping[str, str], checksums: Mapping[str, int]
) -> bytes:
    """Returns the first bytes of the file, as many for any checksums."""
    layout = {
        name: {"shape": list(tensor.shape), "stride": _stride(tensor), "crc32": f"{checksums[name]:08x}"}
        for name, tensor in tensors.items()
    }
    header: dict[str, Any] = {"__metadata__": {**said, "digest": NO_DIGEST, "tensors": json.dumps(layout)}}
    end = 0
    for name, tensor in stored.items():
        begin, end = end, end + bytes_of(tensor)
        header[name] = {
            "dtype": name_of_dtype(tensor.dtype),
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text.replace(NO_DIGEST.encode(), header_digest(text).encode())


def _stride(tensor: Tensor) -> list[int]:
    """Returns the strides that a tensor has in the file: its own, or what is left of them without gaps."""
    stored = _in_order(tensor)
    if stored.is_contiguous():
        return list(tensor.stride())
    order = order_of(tensor)
    steps = torch.empty(stored.shape, device="meta").stride()
    return [steps[order.index(axis)] for axis in range(tensor.ndim)]


def _write(file: IO[bytes], stored: Tensor) -> int:
    """Writes a tensor piece by piece, and returns its checksum."""
    checksum = 0
    for piece in _pieces(stored):
        checksum = zlib.crc32(piece, checksum)
        file.write(piece)
    return checksum


def _pieces(stored: Tensor) -> Iterator[memoryview]:
    flat = stored.contiguous().view(-1)
    step = max(1, _PIECE // flat.element_size())
    for start in range(0, flat.numel(), step):
        yield memoryview(flat[start : start + step].cpu().view(torch.uint8).numpy())  # type: ignore[arg-type]


@contextlib.contextmanager
def turn(path: Path) -> Iterator[bool]:
    """Yields whether this process is the one to write an entry; two may be told so, which only costs work."""
    lock = path.with_suffix(LOCK)
    try:
        import fcntl

        # What lies there instead of a lock is neither waited for nor followed elsewhere.
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW, 0o666)
    except (ImportError, OSError):
        yield True
        return
    try:
        yield _lock(fcntl.flock, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)
        remove(lock)


def _lock(flock: Any, descriptor: int, how: int) -> bool:
    try:
        flock(descriptor, how)
    except BlockingIOError:
        return False
    except OSError:
        # This file system has no locks.
        return True
    return True


def _sync(descriptor: int) -> None:
    """Waits until a file is on the disk itself."""
    if sys.platform == "darwin":
        import fcntl

        # There fsync leaves the numbers in the disk's own memory.
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
