"""Sums over one matrix that are computed together: right in any order of asking, and read once."""

import threading
from dataclasses import replace

import pytest
import torch

from tests.unit.loading.laid_out import laid_out, promise
from transformer_lens.loading.processing.linear_chain import Center, Scale, then
from transformer_lens.loading.processing.shared_sums import SharedSums
from transformer_lens.loading.processing.sums import added

LAYOUT = "head d_model d_head"
SHAPE = (3, 7, 5)
# Orders in which the summed axis is outermost, and in which it is not.
ONE_PASS, APART = [(1, 0, 2), (1, 2, 0)], [(0, 1, 2), (2, 0, 1)]


class Counted:
    """A matrix that counts how often it is read."""

    def __init__(self, order, dtype=torch.float32):
        self.tensor, self.reads = laid_out(torch.randn(SHAPE).to(dtype), order), 0
        self.promise = replace(promise(self.tensor, LAYOUT), make=self.read)

    def read(self):
        self.reads += 1
        return self.tensor


def expected(matrix, vector):
    return torch.tensordot(matrix.tensor.double(), vector.double(), dims=([1], [0]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("order", [*ONE_PASS, *APART])
def test_every_sum_is_right_whoever_asks_first(order, dtype):
    vectors = torch.randn(3, 7).to(dtype)
    inner = torch.float64 if dtype == torch.float64 else torch.float32
    for first in range(3):
        matrix = Counted(order, dtype)
        sums = SharedSums(matrix.promise, "d_model", tuple(promise(vector) for vector in vectors))
        for place in [*range(first, 3), *range(first)]:
            found = sums.of(place, matrix.read, inner)
            assert found.dtype == inner
            torch.testing.assert_close(found.double(), expected(matrix, vectors[place]), rtol=1e-5, atol=1e-5)
        assert matrix.reads == (1 if order in ONE_PASS else 3)


def test_a_sum_is_handed_out_once_and_computed_again():
    matrix, vectors = Counted((1, 0, 2)), torch.randn(2, 7)
    sums = SharedSums(matrix.promise, "d_model", tuple(promise(vector) for vector in vectors))
    first = sums.of(0, matrix.read, torch.float32)
    again = sums.of(0, matrix.read, torch.float32)
    assert torch.equal(first, again) and first.data_ptr() != again.data_ptr() and matrix.reads == 2
    wide = sums.of(1, matrix.read, torch.float64)
    assert wide.dtype == torch.float64 and matrix.reads == 3


def test_threads_that_ask_at_once_read_once():
    matrix, vectors = Counted((1, 0, 2)), torch.randn(8, 7)
    sums = SharedSums(matrix.promise, "d_model", tuple(promise(vector) for vector in vectors))
    found = {}
    begin = threading.Barrier(8)

    def ask(place):
        begin.wait()
        found[place] = sums.of(place, matrix.read, torch.float32)

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert matrix.reads == 1
    for place, vector in enumerate(vectors):
        torch.testing.assert_close(found[place].double(), expected(matrix, vector), rtol=1e-5, atol=1e-5)


def folded_of(matrix, scale, vector, sums):
    folded = then(then(matrix, Scale("d_model", scale), ""), Center("d_model", sums), "")
    return folded, added(promise(torch.zeros(3, 5), "head d_head"), matrix, vector, "d_model", "", sums)


@pytest.mark.parametrize("order", [*ONE_PASS, *APART])
def test_a_folded_matrix_and_its_bias_are_what_they_are_alone(order):
    matrix = Counted(order)
    scale, vector = promise(torch.rand(7) + 0.5), promise(torch.randn(7))
    shared = folded_of(matrix.promise, scale, vector, SharedSums(matrix.promise, "d_model", (scale, vector)))
    alone = folded_of(matrix.promise, scale, vector, None)
    for one, other in zip(shared, alone):
        torch.testing.assert_close(one.make(), other.make(), rtol=1e-5, atol=1e-6)


def test_a_mean_of_something_else_is_not_taken_from_them():
    """The sums are of one scaled matrix: of that of another scale, or of more than one, the mean is computed alone."""
    matrix, other = Counted((1, 0, 2)), Counted((1, 0, 2))
    scale, vector, more = promise(torch.rand(7) + 0.5), promise(torch.randn(7)), promise(torch.rand(7) + 0.5)
    for source, scales in ((matrix, []), (matrix, [more]), (matrix, [scale, more]), (other, [scale])):
        sums = SharedSums(matrix.promise, "d_model", (scale, vector))
        tensor, value = source.promise, source.tensor.double()
        for by in scales:
            tensor = then(tensor, Scale("d_model", by), "")
            value = value * by.make().double()[:, None]
        found = then(tensor, Center("d_model", sums), "").make()
        torch.testing.assert_close(found.double(), value - value.mean(1, keepdim=True), rtol=1e-5, atol=1e-5)
