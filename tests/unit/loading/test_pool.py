"""Several threads keep promises: in order, within a bound, the same numbers, and nothing is left behind."""

import threading
from pathlib import Path

import pytest
import torch

from transformer_lens.loading.errors import CorruptCheckpointError, MissingTensorError
from transformer_lens.loading.memory import pool
from transformer_lens.loading.memory.arithmetic import on_the_way
from transformer_lens.loading.memory.order import in_file_order
from transformer_lens.loading.memory.pool import keep_all
from transformer_lens.loading.memory.threads import one_thread_each
from transformer_lens.loading.processing.linear_chain import recast
from transformer_lens.loading.weights import Held, LazyTensor, Origin, Span, Weights

FILE = Path("no such file")
PATIENCE = 20.0


def fresh(make, offset=0, nbytes=0, shape=(2,), sources=()):
    span = Span(FILE, offset, nbytes) if nbytes else None
    return LazyTensor(shape, torch.float32, Held.FRESH, Origin("key", "file", span=span), make, sources=sources)


def numbered(count, make=lambda number: torch.full((2,), float(number))):
    """Promises whose places in the file run against the order of their names."""
    return Weights({f"w{n}": fresh(lambda n=n: make(n), offset=100 * (count - n), nbytes=8) for n in range(count)})


@pytest.fixture(autouse=True)
def _nothing_is_small(monkeypatch):
    monkeypatch.setattr(pool, "SMALL", 0)


def unread():
    raise AssertionError("only its place is asked for")


def zeros_after(barrier):
    barrier.wait()
    return torch.zeros(2)


def keep(promise):
    return promise.make()


def nothing(nbytes):
    pass


def of_a_load():
    return [thread for thread in threading.enumerate() if thread.name.startswith("load-")]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_are_in_the_order_of_the_weights(threads):
    told = []
    results = keep_all(numbered(40), keep, told.append, threads)
    assert list(results) == [f"w{n}" for n in range(40)]
    assert all(torch.equal(results[f"w{n}"], torch.full((2,), float(n))) for n in range(40))
    assert told == [8] * 40 and not of_a_load()


def test_one_thread_keeps_them_in_the_order_of_the_file():
    asked = []
    keep_all(numbered(6, lambda n: asked.append(n) or torch.zeros(2)), keep, nothing)
    assert asked == [5, 4, 3, 2, 1, 0]


def test_file_order_looks_at_the_largest_piece_that_is_read():
    large = LazyTensor.of(torch.zeros(4), "large")
    small = LazyTensor.of(torch.zeros(1), "small")
    at = lambda tensor, offset: LazyTensor(
        tensor.shape, tensor.dtype, Held.MAPPED, Origin("", span=Span(FILE, offset, tensor.nbytes)), tensor.make
    )
    weights = Weights(
        {
            "late": fresh(unread, sources=(at(small, 3), at(large, 900))),
            "in no file": fresh(unread),
            "early": fresh(unread, sources=(at(large, 50), at(small, 990))),
        }
    )
    assert in_file_order(weights) == ["in no file", "early", "late"]


def test_threads_work_side_by_side():
    together = threading.Barrier(3, timeout=PATIENCE)
    keep_all(numbered(3, lambda n: zeros_after(together)), keep, nothing, threads=3)
    assert not together.broken


def test_every_thread_computes_with_one():
    counts = set()
    together = threading.Barrier(2, timeout=PATIENCE)

    def make(number):
        together.wait()
        counts.add((threading.current_thread().name, torch.get_num_threads()))
        return torch.zeros(2)

    before = torch.get_num_threads()
    with one_thread_each() as most:
        keep_all(numbered(2, make), keep, nothing, threads=2)
    assert len(counts) == 2 and {count for _, count in counts} == {1}
    assert torch.get_num_threads() == before and 1 <= most <= max(before, 1)


def test_what_is_mapped_is_not_given_to_threads():
    weights = Weights({f"w{n}": LazyTensor.of(torch.zeros(2), "", held=Held.MAPPED) for n in range(20)})
    names = set()
    keep_all(weights, lambda p: names.add(threading.current_thread()) or p.make(), nothing, threads=4)
    assert names == {threading.main_thread()}


def test_what_is_made_on_the_way_is_no_more_than_one_promise_would_need(monkeypatch):
    """Sources that are read into memory of their own wait for each other; the neediest alone sets the bound."""
    monkeypatch.setattr(pool, "ROOM", 0)
    sizes = [400, 100, 100, 100, 100, 400, 300, 200, 52, 52]
    lock, held, peaks, side_by_side = threading.Lock(), [], [], []

    def make(size):
        with lock:
            held.append(size)
            peaks.append(sum(held))
            side_by_side.append(len(held))
        torch.zeros(200_000).sort()
        with lock:
            held.remove(size)
        return torch.zeros(size // 4)

    weights = {}
    for number, size in enumerate(sizes):
        source = fresh(lambda size=size: make(size), 1000 * number, size, (size // 4,))
        weights[f"w{number}"] = recast(source, torch.float64, torch.device("cpu"))
        assert on_the_way(weights[f"w{number}"], "assign") == size
    keep_all(Weights(weights), keep, nothing, threads=4)
    assert len(peaks) == len(sizes) and max(peaks) <= max(sizes)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_error_in_order_is_raised_once_and_nothing_begins_after_it(threads):
    begun = []

    def make(number):
        begun.append(number)
        if number == 30:
            raise CorruptCheckpointError("the file has shrunk")
        return torch.zeros(2)

    with pytest.raises(CorruptCheckpointError, match="has shrunk"):
        keep_all(numbered(40, make), keep, nothing, threads)
    assert len(begun) < 40 and not of_a_load()


def test_of_two_errors_the_first_in_order_is_raised():
    together = threading.Barrier(2, timeout=PATIENCE)

    def make(number):
        together.wait()
        raise (MissingTensorError if number == 1 else CorruptCheckpointError)(f"number {number}")

    with pytest.raises(MissingTensorError, match="number 1"):
        keep_all(numbered(2, make), keep, nothing, threads=2)


def test_an_interrupt_comes_before_errors_and_leaves_no_thread():
    together = threading.Barrier(2, timeout=PATIENCE)

    def make(number):
        together.wait()
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        raise ValueError

    with pytest.raises(KeyboardInterrupt):
        keep_all(numbered(2, make), keep, nothing, threads=2)
    assert not of_a_load()


def test_an_error_of_whoever_is_told_ends_the_load():
    def refuse(nbytes):
        raise RuntimeError("no bar")

    with pytest.raises(RuntimeError, match="no bar"):
        keep_all(numbered(9), keep, refuse, threads=2)
    assert not of_a_load()


def test_threads_make_tensors_in_the_mode_of_their_caller():
    together = threading.Barrier(2, timeout=PATIENCE)
    weights = numbered(2, lambda n: zeros_after(together))
    with torch.inference_mode():
        inside = keep_all(weights, keep, nothing, threads=2)
    outside = keep_all(weights, keep, nothing, threads=2)
    assert all(tensor.is_inference() for tensor in inside.values())
    assert not any(tensor.is_inference() for tensor in outside.values())


def test_what_is_small_comes_first_and_is_kept_by_the_caller_alone(monkeypatch):
    monkeypatch.setattr(pool, "SMALL", 100)
    kept = []

    def make(name):
        kept.append((name, threading.current_thread() is threading.main_thread()))
        return torch.zeros(2)

    weights = Weights(
        {
            "reads much": fresh(lambda: make("reads much"), offset=0, nbytes=1000),
            "small": fresh(lambda: make("small"), offset=5000, nbytes=8),
            "smaller": fresh(lambda: make("smaller"), offset=4000, nbytes=8),
            "makes much": fresh(lambda: make("makes much"), offset=9000, nbytes=8, shape=(200,)),
        }
    )
    keep_all(weights, keep, nothing, threads=3)
    assert kept[:2] == [("smaller", True), ("small", True)]
    assert {name for name, _ in kept[2:]} == {"reads much", "makes much"} and not of_a_load()
