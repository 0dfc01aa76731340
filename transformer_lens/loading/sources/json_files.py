"""JSON files of a checkpoint: parsed as data, and checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformer_lens.loading.errors import CorruptCheckpointError

_LARGEST = 256 << 20
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object that a JSON file holds.

    Raises:
        CorruptCheckpointError: The file is a pointer to another, is no JSON, holds no object, repeats a key, or is
            larger than any such file has a reason to be.
    """
    size = path.stat().st_size
    if size > _LARGEST:
        raise CorruptCheckpointError(f"{path} has {size} bytes; a JSON file of a checkpoint has less than {_LARGEST}.")
    text = path.read_bytes()
    refuse_lfs_pointer(path, text[:200])
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError) as error:
        raise CorruptCheckpointError(
            f"{path} ({size} bytes) cannot be read as JSON: {error}\n  is the download complete? Fetch it again."
        ) from None
    if not isinstance(value, dict):
        raise CorruptCheckpointError(f"{path} holds a JSON {type(value).__name__}, not an object.")
    return value


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice")
    return out


def refuse_lfs_pointer(path: Path, start: bytes) -> None:
    """Raises for a file that only points to the real one.

    Raises:
        CorruptCheckpointError: The file is a Git LFS pointer; the size that the real one has is named.
    """
    if not start.startswith(LFS_POINTER):
        return
    sizes = [line.split()[1].decode() for line in start.splitlines() if line.startswith(b"size ") and line.split()[1:]]
    expected = f" of {sizes[0]} bytes" if sizes else ""
    raise CorruptCheckpointError(
        f"{path} is a Git LFS pointer of {path.stat().st_size} bytes; the real file{expected} is not here.\n"
        "  Fetch it with `git lfs pull` in that folder, or download the repository again."
    )
