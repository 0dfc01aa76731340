"""How many threads a load computes with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# A few threads take all that memory gives.
_MOST = 8


@contextmanager
def load_threads() -> Iterator[int]:
    """Makes torch compute with one thread inside the block, and yields how many threads may work side by side.

    A load is a long row of short operations on memory that is touched for the first time. Threads that share each
    operation wait for their slowest at every one of them; threads that each have a tensor of their own do not, and
    numbers do not depend on how many there are.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield min(before, os.cpu_count() or 1, _MOST)
    finally:
        torch.set_num_threads(before)
