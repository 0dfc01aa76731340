"""How many threads a load computes with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# A few threads take all that memory gives.
_MOST = 8


def load_threads() -> int:
    """Returns how many threads may keep promises side by side: as many as torch computes with, and the machine has."""
    return min(torch.get_num_threads(), os.cpu_count() or 1, _MOST)


@contextmanager
def one_thread_each() -> Iterator[int]:
    """Makes torch compute with one thread inside the block, and yields how many threads may work side by side.

    A load is a long row of short operations on memory that is touched for the first time. Threads that share each
    operation wait for their slowest at every one of them; threads that each have a tensor of their own do not, and
    numbers do not depend on how many there are.
    """
    before, side_by_side = torch.get_num_threads(), load_threads()
    torch.set_num_threads(1)
    try:
        yield side_by_side
    finally:
        torch.set_num_threads(before)
