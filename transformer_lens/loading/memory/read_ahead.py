"""Reads files ahead of those who compute, where they are not in memory yet.

A mapping of a file that is not in memory is read fault by fault, and each fault waits for the disk. One thread asks the
system for large blocks, in the order of the files, a bounded way ahead: the disk works while others compute.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from transformer_lens.loading.weights import Span

BLOCK = 8 << 20
# How many blocks ahead: enough to keep a disk busy, small beside what a model takes.
WINDOW = 32


class ReadAhead:
    """One thread that keeps a window of blocks asked for; none where everything is in memory, or not on Linux.

    Used as a context: the thread has ended when the context is left.
    """

    def __init__(self, spans: Iterable[Span], block: int = BLOCK, window: int = WINDOW) -> None:
        self._blocks = [piece for piece in in_blocks(spans, block) if not is_in_memory(piece)]
        self._places = [(piece.path, piece.offset) for piece in self._blocks]
        self._window = window
        self._reached = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="load-read-ahead")

    @property
    def missing(self) -> int:
        """Bytes that were not in memory at the beginning."""
        return sum(piece.nbytes for piece in self._blocks)

    def __enter__(self) -> ReadAhead:
        if self._blocks:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._blocks:
            self._thread.join()

    def reach(self, span: Span) -> None:
        """Says that someone begins to read a piece: the window may move behind it."""
        number = bisect.bisect_left(self._places, (span.path, span.offset + span.nbytes))
        with self._changed:
            self._reached = max(self._reached, number)
            self._changed.notify()

    def _run(self) -> None:
        for number, block in enumerate(self._blocks):
            with self._changed:
                while not self._closed and number >= self._reached + self._window:
                    self._changed.wait()
                if self._closed:
                    return
            ask_for(block)


def in_blocks(spans: Iterable[Span], block: int = BLOCK) -> Iterator[Span]:
    """Yields pieces of files in order, joined where they touch and cut into blocks."""
    path, start, end = Path(), 0, 0
    for span in sorted(set(spans)):
        if span.path != path or span.offset > end:
            yield from _cut(path, start, end, block)
            path, start, end = span.path, span.offset, span.offset
        end = max(end, span.offset + span.nbytes)
    yield from _cut(path, start, end, block)


def _cut(path: Path, start: int, end: int, block: int) -> Iterator[Span]:
    for offset in range(start, end, block):
        yield Span(path, offset, min(block, end - offset))


def is_in_memory(piece: Span) -> bool:
    """Tells by three of its bytes: a read that may not wait says whether it would have to.

    Where the system does not say, or the file cannot be opened, the answer is yes: there is nothing to ask for.
    """
    if sys.platform != "linux":
        return True
    last = piece.offset + piece.nbytes - 1
    try:
        with piece.path.open("rb", buffering=0) as file:
            for offset in (piece.offset, (piece.offset + last) // 2, last):
                os.preadv(file.fileno(), [bytearray(1)], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def ask_for(piece: Span) -> None:
    """Asks the system to read a piece of a file into memory; it is read all the same where that is refused."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError), piece.path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), piece.offset, piece.nbytes, os.POSIX_FADV_WILLNEED)
