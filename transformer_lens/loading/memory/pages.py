"""Anonymous pages for large results, of the kind that is cheapest to touch for the first time on this machine.

Huge pages are touched four times as fast as small ones where the kernel has them at hand. Where it first has to move
other memory aside for each of them, or a hypervisor has to hand each of them back, they can be five times slower; and
that can begin in the middle of a tensor, when those at hand are used up. Only measuring tells: a little of what is
allocated anyway is touched in both kinds, and the rest is made of the kind that was cheaper. What is more, huge pages
are touched as they are allocated, one after the other, and from the first that takes as long as small pages would
have, small ones are made until both are measured again.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys
import threading
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path

import torch

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# A huge page, and how many of them are touched of each kind in one measurement.
PIECE = 2 << 20
PIECES = 2
# Bytes allocated between one measurement and the next: the clearer an answer that stays the same, the more.
FIRST_DISTANCE = 32 << 20
LAST_DISTANCE = 2 << 30
# The same, after one huge page was dear, which may have been by chance.
_SOON = 8 << 20


class Kind(Enum):
    """Pages that memory is made of."""

    SMALL = "small pages"
    HUGE = "huge pages"


class PageChoice:
    """Chooses the kind of pages for each mapping; threads may share one.

    Attributes:
        kind: What is cheaper, as far as has been measured.
        rates: Bytes a second of the first touch of either kind, at the last measurement; empty before the first.
    """

    def __init__(self, setting: str, touch: Callable[[mmap.mmap, int], float] | None = None) -> None:
        """Creates a choice that has measured nothing.

        Args:
            setting: The system's rule for huge pages as it writes it: "always [madvise] never"; empty where there is
                none, and where nothing is to be chosen.
            touch: Touches a piece of a mapping, and returns the seconds that took.
        """
        self._free = "[always]" in setting or "[madvise]" in setting
        self._touch = touch or _touch
        self._lock = threading.Lock()
        self.kind = Kind.SMALL
        self.rates: dict[Kind, float] = {}
        self.begin()

    def begin(self) -> None:
        """Says that a load begins: what was measured before it may no longer hold."""
        with self._lock:
            self._distance = self._since = FIRST_DISTANCE

    def advise(self, pages: mmap.mmap) -> None:
        """Says to the system what a mapping is to be made of, and measures on it where that is due."""
        if not self._free:
            return
        place = min(-ctypes.addressof(ctypes.c_char.from_buffer(pages)) % PIECE, len(pages))
        self._say(pages, self.kind, 0, place)
        while place < len(pages):
            left = len(pages) - place
            if left >= 2 * PIECES * PIECE and self._is_due():
                place = self._measure(pages, place)
            elif self.kind is Kind.SMALL:
                place = self._go_on(pages, place, max(self._distance - self._since, PIECE))
            else:
                place = self._touch_huge(pages, place)

    def _is_due(self) -> bool:
        with self._lock:
            due = self._since >= self._distance
            # Another thread that asks now need not measure as well.
            self._since = 0 if due else self._since
            return due

    def _go_on(self, pages: mmap.mmap, place: int, length: int) -> int:
        """Advises a stretch from a place on, whole pieces if it does not end the mapping; returns where it ends."""
        end = min(place + -(-length // PIECE) * PIECE, len(pages))
        with self._lock:
            self._since += end - place
        self._say(pages, self.kind, place, end - place)
        return end

    def _touch_huge(self, pages: mmap.mmap, place: int) -> int:
        """Makes huge pages one by one, until both kinds are to be measured again; returns where they end."""
        end = self._go_on(pages, place, max(self._distance - self._since, PIECE))
        while end - place >= PIECE:
            seconds = self._touch(pages, place)
            place += PIECE
            if PIECE / seconds < self.rates[Kind.SMALL]:
                with self._lock:
                    self.kind = Kind.SMALL
                    self._distance = FIRST_DISTANCE
                    self._since = max(FIRST_DISTANCE - _SOON, 0)
                return place
        return end

    def _measure(self, pages: mmap.mmap, place: int) -> int:
        """Touches pieces of both kinds in turn, and returns where they end."""
        seconds = dict.fromkeys(Kind, 0.0)
        for _ in range(PIECES):
            for kind in Kind:
                self._say(pages, kind, place, PIECE)
                seconds[kind] += self._touch(pages, place)
                place += PIECE
        rates = {kind: PIECE * PIECES / each for kind, each in seconds.items()}
        # What small pages cost does not change much; a slow one was interrupted.
        rates[Kind.SMALL] = max(rates[Kind.SMALL], self.rates.get(Kind.SMALL, 0.0))
        # Of two that cost the same, small pages waste less.
        kind = Kind.HUGE if rates[Kind.HUGE] > 1.2 * rates[Kind.SMALL] else Kind.SMALL
        growth = max(2, int(max(rates.values()) / min(rates.values())))
        with self._lock:
            self.rates = rates
            self._distance = min(growth * self._distance, LAST_DISTANCE) if kind is self.kind else FIRST_DISTANCE
            self.kind = kind
        return place

    def _say(self, pages: mmap.mmap, kind: Kind, start: int, length: int) -> None:
        if sys.platform == "linux":
            # A kernel without huge pages refuses: the memory is as good.
            with contextlib.suppress(OSError):
                pages.madvise(mmap.MADV_HUGEPAGE if kind is Kind.HUGE else mmap.MADV_NOHUGEPAGE, start, length)

    def __str__(self) -> str:
        """Says what results are made of, and why."""
        if not self.rates:
            return self.kind.value
        other = Kind.SMALL if self.kind is Kind.HUGE else Kind.HUGE
        seconds = {kind: f"{(1 << 30) / rate:.2f} s" for kind, rate in self.rates.items()}
        return f"{self.kind.value} ({seconds[self.kind]} per GiB of first touch; {other.value} {seconds[other]})"


def _touch(pages: mmap.mmap, start: int) -> float:
    """Writes to every small page of a piece, and returns the seconds that took."""
    bytes_there = torch.frombuffer(pages, dtype=torch.uint8, count=PIECE, offset=start)[:: mmap.PAGESIZE]
    began = time.perf_counter()
    bytes_there.zero_()
    return time.perf_counter() - began


def _setting(path: Path = SETTING) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


#: The choice of this process.
PAGES = PageChoice(_setting())


def pages(nbytes: int) -> mmap.mmap:
    """Maps anonymous memory of this process alone; not on Windows."""
    assert sys.platform != "win32"
    mapped = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    PAGES.advise(mapped)
    return mapped
