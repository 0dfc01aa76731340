"""How many threads a load computes with."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from transformer_lens.loading.memory.ambient import turn

# A few threads take all that memory gives.
_MOST = 8

T = TypeVar("T")


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
    side_by_side = load_threads()
    before = compute_with(1)
    try:
        yield side_by_side
    finally:
        compute_with(before)


def compute_with(number: int) -> int:
    """Sets how many threads torch computes with in the calling thread, and nowhere else.

    ``torch.set_num_threads`` also sets what threads start with that are begun later, by whomever. That number is put
    back at once, by a thread that ends: each has a number of its own.

    Returns:
        How many it were before.
    """
    with turn:
        before = torch.get_num_threads()
        if number != before:
            later = _by_new_thread(torch.get_num_threads)
            try:
                torch.set_num_threads(number)
            finally:
                _by_new_thread(lambda: torch.set_num_threads(later))
    return before


def _by_new_thread(function: Callable[[], T]) -> T:
    """Returns what a function returns in a thread that has just begun."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(function()), name="load-number-of-threads")
    thread.start()
    thread.join()
    return results[0]
