"""Asks the system for pieces of files shortly before they are read, where they are not in memory yet.

A mapping of a file that is not in memory is read fault by fault, a hundred kilobytes at a time, each fault waiting for
the disk. To be asked for in large blocks, in the order of the file, lets the disk work while others compute.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from transformer_lens.loading.weights import Span

BLOCK = 8 << 20
# What is asked for and not used yet: enough to keep a disk busy, small beside any model.
WINDOW = 128 << 20


class ReadAhead:
    """Keeps a window of blocks asked for ahead of whoever reads.

    Elsewhere than on Linux it does nothing.

    Attributes:
        asked_for: Bytes that were not in memory and have been asked for.
    """

    def __init__(self, spans: Iterable[Span], window: int = WINDOW) -> None:
        self._blocks = list(_blocks(spans)) if sys.platform == "linux" else []
        self._ends: dict[Path, list[tuple[int, int]]] = {}
        for number, block in enumerate(self._blocks):
            self._ends.setdefault(block.path, []).append((block.offset + block.nbytes, number))
        self._window = max(1, window // BLOCK)
        self._next = 0
        self._lock = threading.Lock()
        self.asked_for = 0

    def reach(self, spans: Iterable[Span]) -> None:
        """Asks for what these pieces lie in and for a window behind it, as far as that has not been done."""
        for span in spans:
            ends = self._ends.get(span.path, [])
            last = next((number for end, number in ends if end >= span.offset + span.nbytes), -1)
            self._ask(last + 1 + self._window if last >= 0 else 0)

    def _ask(self, until: int) -> None:
        with self._lock:
            blocks = self._blocks[self._next : until]
            self._next += len(blocks)
        for block in blocks:
            try:
                self._ask_for(block)
            except OSError:
                # A file system that cannot be asked: it is read all the same.
                return

    def _ask_for(self, block: Span) -> None:
        if sys.platform == "linux":
            descriptor = os.open(block.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if not _is_in_memory(descriptor, block):
                    os.posix_fadvise(descriptor, block.offset, block.nbytes, os.POSIX_FADV_WILLNEED)
                    self.asked_for += block.nbytes
            finally:
                os.close(descriptor)


def _blocks(spans: Iterable[Span]) -> Iterator[Span]:
    """Yields pieces of files in order, joined where they touch and cut into blocks."""
    path, start, end = Path(), 0, 0
    for span in [*sorted(set(spans)), None]:
        if span is not None and span.path == path and span.offset <= end:
            end = max(end, span.offset + span.nbytes)
            continue
        for offset in range(start, end, BLOCK):
            yield Span(path, offset, min(BLOCK, end - offset))
        if span is not None:
            path, start, end = span.path, span.offset, span.offset + span.nbytes


def _is_in_memory(descriptor: int, block: Span) -> bool:
    """Tells by three bytes of a block; a read that may not wait says whether it would have to."""
    if sys.platform == "linux":
        last = block.offset + block.nbytes - 1
        for offset in (block.offset, (block.offset + last) // 2, last):
            try:
                os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT)
            except BlockingIOError:
                return False
    return True
