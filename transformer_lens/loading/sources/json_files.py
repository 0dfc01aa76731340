"""JSON files of a checkpoint: parsed as data, and checked."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from transformer_lens.loading.errors import CorruptCheckpointError
from transformer_lens.loading.sources.whole_files import fetch_again, refuse_lfs_pointer

# The index of the largest open models (a hundred thousand tensors) is below each.
_LARGEST = 16 << 20
_MOST_VALUES = 1 << 20


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object that a JSON file holds.

    Raises:
        CorruptCheckpointError: The file is a pointer to another, is no JSON, holds no object, repeats a key, has NaN,
            or is larger than any such file has a reason to be.
    """
    size = path.stat().st_size
    if size > _LARGEST:
        raise CorruptCheckpointError(f"{path} has {size} bytes; a JSON file of a checkpoint has less than {_LARGEST}.")
    text = path.read_bytes()
    refuse_lfs_pointer(path, text[:200])
    try:
        return parse_object(text)
    except ValueError as fact:
        raise CorruptCheckpointError(
            f"{path} ({size} bytes) cannot be read as a JSON object: {fact}.\n  is the download complete? "
            f"{fetch_again(path)}."
        ) from None


def parse_object(text: bytes) -> dict[str, Any]:
    """Returns the object that a JSON text holds.

    Raises:
        ValueError: The text is no JSON, holds something else, repeats a key, has NaN, or more values than any
            checkpoint has a reason for.
    """
    # Counted before parsing: a list in a list costs 60 bytes of memory for two of text.
    if sum(map(text.count, (b"{", b"[", b","))) > _MOST_VALUES:
        raise ValueError(f"it has more than {_MOST_VALUES} values")
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_no_repeats, parse_constant=_no_nan)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, not an object")
    return value


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {twice[:80]!r} stands twice")
    return out


def _no_nan(word: str) -> float:
    if word == "NaN":
        raise ValueError("a value is NaN")
    return float(word)
