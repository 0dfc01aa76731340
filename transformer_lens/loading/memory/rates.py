"""How fast this machine's memory is: the limits that a load can approach, measured in a second or two."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from transformer_lens.loading.checkpoint.regions import Region
from transformer_lens.loading.memory.fresh import empty
from transformer_lens.loading.memory.threads import one_thread_each

_ROUNDS = 3
_PIECE = 1 << 24


@dataclass(frozen=True)
class Rates:
    """Bytes a second, the best of three rounds, on one thread.

    Attributes:
        nbytes: How many bytes were touched in a round.
        first_touch: Writing to memory that the system has just given: what any result costs at least.
        copy: Copying into memory that has been touched.
        clone: Copying into memory that has not: what `{k: v.clone()}` costs.
        map_file: Reading every byte of a file that is in the page cache, through a new mapping.
        folder: Where that file was.
    """

    nbytes: int
    first_touch: float
    copy: float
    clone: float
    map_file: float
    folder: str

    def as_dict(self) -> dict[str, float | int | str]:
        """Returns the figures as data that JSON can hold."""
        return asdict(self)


def measure_rates(nbytes: int, folder: Path | None = None) -> Rates:
    """Measures the rates.

    Args:
        nbytes: Bytes to touch in each round, rounded down to whole MiB; at least one MiB.
        folder: Where a file of as many bytes is written and removed; None takes the system's folder for such.
    """
    nbytes = max(nbytes >> 20, 1) << 20
    with one_thread_each():
        source, target = (empty((nbytes,), torch.uint8, None).fill_(1) for _ in range(2))
        first_touch = _best(lambda: empty((nbytes,), torch.uint8, None).fill_(1))
        copy = _best(lambda: target.copy_(source))
        clone = _best(lambda: empty((nbytes,), torch.uint8, None).copy_(source))
        map_file, place = _map_rate(nbytes, folder)
    return Rates(nbytes, nbytes / first_touch, nbytes / copy, nbytes / clone, nbytes / map_file, str(place))


def _map_rate(nbytes: int, folder: Path | None) -> tuple[float, Path]:
    """Returns seconds of reading a file through a mapping, and the folder in which that was tried."""
    try:
        return _mapped_in(nbytes, folder)
    except OSError:
        # The folder is not there, may not be written to, or is full.
        return _mapped_in(nbytes, None)


def _mapped_in(nbytes: int, folder: Path | None) -> tuple[float, Path]:
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".transformer_lens_rate_") as file:
        for start in range(0, nbytes, _PIECE):
            file.write(os.urandom(1) * min(_PIECE, nbytes - start))
        file.flush()
        region = Region(Path(file.name), 0, (nbytes // 8,), torch.int64, nbytes)
        seconds = _best(lambda: region.map().sum())
        return seconds, Path(file.name).parent


def _best(function: Callable[[], object]) -> float:
    """Returns the seconds of the quickest call; what it returns is let go outside the measured time."""
    best = float("inf")
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        result = function()
        best = min(best, time.perf_counter() - start)
        del result
    return best
