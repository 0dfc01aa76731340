"""Sizes of memory as people write them, and what they say of which device."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    **dict.fromkeys(("k", "kib"), 1 << 10),
    **dict.fromkeys(("m", "mib"), 1 << 20),
    **dict.fromkeys(("g", "gib"), 1 << 30),
    **dict.fromkeys(("t", "tib"), 1 << 40),
}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([a-z]*)", re.IGNORECASE | re.ASCII)
# What a plan may be told that a machine has: main memory alone, or sizes by device.
Memory = int | str | Mapping[str, int | str]


def nbytes_of(size: int | str) -> int:
    """Returns a size in bytes: a number of them, or "16GiB", "16G" (the same), "16GB" (of 10⁹), "512 MiB".

    Raises:
        ValueError: It is no size.
    """
    if isinstance(size, int) and not isinstance(size, bool) and size >= 0:
        return size
    found = _SIZE.fullmatch(size.strip()) if isinstance(size, str) else None
    if found is None or found.group(2).lower() not in _UNITS:
        raise ValueError(f"{size!r} is no size of memory: give bytes, or 16GiB, 24GB, 512MiB.")
    return int(float(found.group(1)) * _UNITS[found.group(2).lower()])


def memory_of(given: Memory | None) -> Mapping[str, int]:
    """Returns the bytes of each device that a plan is told of, by its name.

    Args:
        given: A size of main memory, or sizes by device: "cpu" is main memory, "cuda" every GPU, "cuda:1" one.

    Raises:
        ValueError: A size is none, or a device.
    """
    by_device = {} if given is None else given if isinstance(given, Mapping) else {"cpu": given}
    for device in by_device:
        try:
            torch.device(device)
        except RuntimeError:
            raise ValueError(f"memory of {device!r}: that is no device, as cpu, cuda and cuda:1 are.") from None
    return {device: nbytes_of(size) for device, size in by_device.items()}


def memory_of_words(words: Iterable[str]) -> Mapping[str, str]:
    """Returns sizes by device as a terminal has them: "16GiB" of main memory, "cuda=24GiB" of a device.

    Raises:
        ValueError: A device is given twice.
    """
    out: dict[str, str] = {}
    for word in words:
        device, equals, size = word.rpartition("=")
        device = device if equals else "cpu"
        if device in out:
            raise ValueError(f"the memory of {device} is given twice.")
        out[device] = size
    return out
