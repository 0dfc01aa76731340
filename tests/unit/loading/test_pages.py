"""The kind of pages that results are made of follows what their first touch costs, while a load goes on."""

import mmap
import sys

import pytest
import torch

from transformer_lens.loading.memory.fresh import empty
from transformer_lens.loading.memory.pages import LAST_DISTANCE, PIECE, PIECES, Kind, PageChoice

MIB = 1 << 20
MADVISE = "always [madvise] never"

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux is told what pages to use")


class Machine:
    """Hands out so many cheap huge pages, then dear ones; small pages cost 1 s each piece throughout."""

    def __init__(self, cheap_huge_pages):
        self.left = cheap_huge_pages
        self.kind = None
        self.touched = {Kind.SMALL: 0, Kind.HUGE: 0}

    def touch(self, pages, start):
        assert start + PIECE <= len(pages)
        torch.frombuffer(pages, dtype=torch.uint8, count=PIECE, offset=start)[0] = 1
        self.touched[self.kind] += 1
        if self.kind is Kind.SMALL:
            return 1.0
        self.left -= 1
        return 0.25 if self.left >= 0 else 6.0


def choice_on(machine, monkeypatch, setting=MADVISE):
    """A choice whose advice the machine hears, and the stretches that were advised, in bytes by kind."""
    choice = PageChoice(setting, machine.touch)
    advised = {Kind.SMALL: 0, Kind.HUGE: 0}

    def say(pages, kind, start, length):
        assert 0 <= start and start + length <= len(pages) and start % mmap.PAGESIZE == 0
        machine.kind = kind
        advised[kind] += length

    monkeypatch.setattr(choice, "_say", say)
    return choice, advised


def mapped(nbytes):
    return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


@linux
def test_huge_pages_are_taken_where_they_are_cheaper(monkeypatch):
    choice, advised = choice_on(Machine(10**6), monkeypatch)
    for _ in range(20):
        choice.advise(mapped(32 * MIB))
    assert choice.kind is Kind.HUGE and advised[Kind.HUGE] > 0.9 * sum(advised.values())


@linux
def test_dear_huge_pages_are_hardly_touched(monkeypatch):
    machine = Machine(0)
    choice, advised = choice_on(machine, monkeypatch)
    for _ in range(64):
        choice.advise(mapped(32 * MIB))
    assert choice.kind is Kind.SMALL
    # 2 GiB: at most at 32 MiB, six times that, and so on.
    assert machine.touched[Kind.HUGE] <= 4 * PIECES


@linux
@pytest.mark.parametrize("size", [8 * MIB, 16 * MIB, 200 * MIB, 800 * MIB])
def test_the_choice_changes_with_the_first_huge_page_that_is_dear(monkeypatch, size):
    machine = Machine(40)
    choice, _ = choice_on(machine, monkeypatch)
    for _ in range(800 * MIB // size):
        choice.advise(mapped(size))
    assert choice.kind is Kind.SMALL and machine.left < 0
    # The one that showed it, and what later measurements touched: soon after, at 32 MiB, six times that, and so on.
    assert machine.touched[Kind.HUGE] <= 40 + 1 + 4 * PIECES


@linux
def test_a_load_begins_by_measuring_and_finds_what_has_changed(monkeypatch):
    machine = Machine(0)
    choice, _ = choice_on(machine, monkeypatch)
    for _ in range(20):
        choice.advise(mapped(512 * MIB))
    assert choice._distance == LAST_DISTANCE
    machine.left = 10**6
    choice.begin()
    choice.advise(mapped(64 * MIB))
    assert choice.kind is Kind.HUGE


@linux
@pytest.mark.parametrize("setting", ["always madvise [never]", ""])
def test_nothing_is_measured_where_the_system_leaves_no_choice(monkeypatch, setting):
    machine = Machine(0)
    choice, advised = choice_on(machine, monkeypatch, setting)
    choice.advise(mapped(64 * MIB))
    assert sum(machine.touched.values()) == sum(advised.values()) == 0 and str(choice) == "small pages"


@linux
@pytest.mark.parametrize("size", [mmap.PAGESIZE, PIECE - 1, PIECE + 1, 2 * PIECES * PIECE, 33 * MIB + 5])
def test_every_byte_is_advised_once_the_choice_is_made(monkeypatch, size):
    choice, advised = choice_on(Machine(0), monkeypatch)
    choice.advise(mapped(512 * MIB))
    before = sum(advised.values())
    choice.advise(mapped(size))
    assert sum(advised.values()) - before == size


def test_what_was_measured_is_told(monkeypatch):
    choice = PageChoice(MADVISE)
    choice.rates = {Kind.SMALL: float(1 << 31), Kind.HUGE: float(1 << 33)}
    choice.kind = Kind.HUGE
    assert str(choice) == "huge pages (0.12 s per GiB of first touch; small pages 0.50 s)"


def test_memory_is_zero_wherever_it_was_touched():
    assert not empty((100 * MIB,), torch.uint8, None).any()
