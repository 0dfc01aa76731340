"""How many threads a load computes with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def load_threads() -> Iterator[int]:
    """Computes with at most half of the machine's cores inside the block, and yields how many.

    A load is a long row of short operations on memory that is touched for the first time. On two cores two threads
    were slower than one at every part of it, and many times slower when something else ran: each operation waits for
    its slowest thread.
    """
    before = torch.get_num_threads()
    count = max(1, min(before, (os.cpu_count() or 1) // 2))
    torch.set_num_threads(count)
    try:
        yield count
    finally:
        torch.set_num_threads(before)
