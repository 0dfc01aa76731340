"""What is asked for ahead, how far, and that it is right whether or not the system answers."""

import os
import sys
import threading
from pathlib import Path

import pytest

from transformer_lens.loading.memory import read_ahead
from transformer_lens.loading.memory.read_ahead import ReadAhead, in_blocks, is_in_memory
from transformer_lens.loading.weights import Span

A, B = Path("a"), Path("b")
PATIENCE = 20.0


def test_pieces_are_joined_where_they_touch_and_cut_into_blocks():
    spans = [Span(B, 0, 4), Span(A, 10, 10), Span(A, 20, 15), Span(A, 12, 3), Span(A, 50, 5), Span(A, 10, 10)]
    assert list(in_blocks(spans, 10)) == [
        Span(A, 10, 10),
        Span(A, 20, 10),
        Span(A, 30, 5),
        Span(A, 50, 5),
        Span(B, 0, 4),
    ]
    assert list(in_blocks([])) == []


@pytest.fixture
def asked(monkeypatch):
    """Makes every piece one that is not in memory; yields those asked for, and a way to wait for them."""
    pieces, arrived = [], threading.Semaphore(0)
    monkeypatch.setattr(read_ahead, "is_in_memory", lambda piece: False)
    monkeypatch.setattr(read_ahead, "ask_for", lambda piece: (pieces.append(piece), arrived.release()))

    def wait_for(count):
        for _ in range(count):
            assert arrived.acquire(timeout=PATIENCE)
        assert not arrived.acquire(timeout=0.1), "asked for more than the window"
        return [(piece.path, piece.offset) for piece in pieces]

    return wait_for


def test_the_window_moves_behind_who_reads(asked):
    with ReadAhead([Span(A, 0, 100), Span(B, 0, 100)], block=20, window=3) as ahead:
        assert ahead.missing == 200
        assert asked(3) == [(A, 0), (A, 20), (A, 40)]
        ahead.reach(Span(A, 0, 40))
        assert asked(2)[-1] == (A, 80)
        ahead.reach(Span(A, 0, 20))  # another thread, a little behind
        assert asked(0)[-1] == (A, 80)
        ahead.reach(Span(B, 0, 20))
        assert asked(4)[-1] == (B, 60)
        assert "load-read-ahead" in [thread.name for thread in threading.enumerate()]
    assert "load-read-ahead" not in [thread.name for thread in threading.enumerate()]


def test_an_error_inside_ends_the_thread(asked):
    with pytest.raises(ValueError), ReadAhead([Span(A, 0, 100)], block=1, window=1):
        raise ValueError
    assert "load-read-ahead" not in [thread.name for thread in threading.enumerate()]


def test_what_is_in_memory_is_not_asked_for(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(bytes(1 << 16))
    piece = Span(file, 100, 60_000)
    assert is_in_memory(piece)
    before = threading.active_count()
    with ReadAhead([piece]) as ahead:
        assert ahead.missing == 0 and threading.active_count() == before
        ahead.reach(piece)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what is in memory")
def test_what_is_not_in_memory_is_asked_for(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(os.urandom(1 << 22))
    piece = Span(file, 0, 1 << 22)
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if is_in_memory(piece):
        pytest.skip("this file system keeps its files in memory")
    with ReadAhead([piece]) as ahead:
        assert ahead.missing == 1 << 22
        ahead._thread.join(PATIENCE)
    assert len(file.read_bytes()) == 1 << 22


def test_a_file_that_is_gone_is_left_to_who_reads_it(tmp_path):
    gone = Span(tmp_path / "gone", 0, 10)
    assert is_in_memory(gone)
    read_ahead.ask_for(gone)
