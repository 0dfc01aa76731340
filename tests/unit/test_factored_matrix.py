"""Every operation on a factored matrix is that operation on the product."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transformer_lens.FactoredMatrix import FactoredMatrix
from transformer_lens.utilities import composition_scores, get_matrix_corner
from transformer_lens.utils import get_corner

LEADING = (2, 3)


def close(a, b):
    return torch.allclose(a, b, atol=1e-4)


def factored(*leading: int, left=7, inner=4, right=6) -> FactoredMatrix:
    return FactoredMatrix(torch.randn(*leading, left, inner), torch.randn(*leading, inner, right))


sizes = st.integers(1, 6)
shapes = st.builds(
    lambda leading, left, inner, right: (leading, {"left": left, "inner": inner, "right": right}),
    st.lists(st.integers(1, 3), max_size=2),
    *(sizes, sizes, sizes),
)


@given(shapes)
def test_decompositions(shape):
    matrix = factored(*shape[0], **shape[1])
    product = matrix.A @ matrix.B
    U, S, V = matrix.svd()
    assert close(U @ torch.diag_embed(S) @ V.transpose(-2, -1), product)
    assert close(U.transpose(-2, -1) @ U, torch.eye(S.shape[-1]).expand(*matrix.shape[:-2], -1, -1))
    assert (S[..., :-1] >= S[..., 1:]).all() and matrix.V is matrix.Vh is V and matrix.U is U
    assert close(matrix.norm(), product.norm(dim=(-2, -1)))
    assert close(U @ matrix.collapse_l(), product)
    assert close(matrix.collapse_r() @ V.transpose(-2, -1), product)
    even = matrix.make_even()
    assert close(even.AB, product) and close(even.A.norm(dim=(-2, -1)), even.B.norm(dim=(-2, -1)))


@given(shapes)
def test_shapes_and_transpose(shape):
    matrix = factored(*shape[0], **shape[1])
    assert matrix.shape == matrix.AB.shape and matrix.ndim == matrix.AB.ndim
    assert (matrix.ldim, matrix.mdim, matrix.rdim) == tuple(shape[1].values())
    assert matrix.has_leading_dims == (len(shape[0]) > 0)
    assert close(matrix.T.AB, matrix.AB.transpose(-2, -1))
    assert matrix.pair == (matrix.A, matrix.B)
    assert f"Hidden Dim({shape[1]['inner']})" in repr(matrix)


def test_eigenvalues_are_those_of_the_product():
    matrix = factored(left=6, inner=4, right=6)
    rest = torch.linalg.eigvals(matrix.AB)
    largest = rest[rest.abs().argsort(descending=True)[:4]]
    found = matrix.eigenvalues
    assert all((found - value).abs().min() < 1e-3 for value in largest)
    assert close(matrix.BA, matrix.B @ matrix.A)
    with pytest.raises(AssertionError, match="square"):
        factored().eigenvalues


@given(st.sampled_from([(), (3,), (2, 3)]), st.integers(1, 9), st.integers(1, 8))
def test_products(leading, other, inner):
    matrix = factored(2, 3, inner=inner)
    right, left = torch.randn(*leading, 6, other), torch.randn(*leading, other, 7)
    assert isinstance(matrix @ right, FactoredMatrix) and close((matrix @ right).AB, matrix.AB @ right)
    assert isinstance(left @ matrix, FactoredMatrix) and close((left @ matrix).AB, left @ matrix.AB)
    second = factored(*leading, left=6, inner=other, right=5)
    both = matrix @ second
    assert isinstance(both, FactoredMatrix) and close(both.AB, matrix.AB @ second.AB)
    assert both.mdim == min(inner, other, 6)


@pytest.mark.parametrize("leading", [(), LEADING])
def test_products_with_vectors_are_tensors(leading):
    matrix = factored(*leading)
    right, left = torch.randn(6), torch.randn(7)
    assert close(matrix @ right, matrix.AB @ right)
    assert close(left @ matrix, left @ matrix.AB)


def test_inner_axes_must_agree():
    matrix = factored()
    for wrong in (
        lambda: matrix @ torch.randn(5, 2),
        lambda: torch.randn(2, 5) @ matrix,
        lambda: matrix @ torch.randn(5),
        lambda: matrix @ matrix,
    ):
        with pytest.raises(AssertionError, match="inner axes"):
            wrong()


def test_numbers_multiply_and_other_tensors_do_not():
    matrix = factored(*LEADING)
    for scalar in (2, 2.0, torch.tensor(2.0), torch.tensor([2.0])):
        assert close((matrix * scalar).AB, 2 * matrix.AB) and close((scalar * matrix).AB, 2 * matrix.AB)
    with pytest.raises(AssertionError, match="takes a number"):
        matrix * torch.ones(2)


@pytest.mark.parametrize(
    "index",
    [
        0,
        (1, 2),
        slice(0, 1),
        [0, 1, 1],
        torch.tensor([1, 0, 1]),
        torch.tensor([True, False]),
        None,
        (None, 0),
        (0, None),
        ...,
        (..., slice(1, 3)),
        (..., slice(1, 3), slice(None, 2)),
        (0, slice(None), slice(1, 3)),
        (0, slice(None), [1, 2], [0, 3, 5]),
        ([0, 1], [2, 0], slice(None, None, 2)),
        (slice(None), 1, torch.tensor([4, 0]), slice(2, None)),
    ],
)
def test_indexing_is_indexing_the_product(index):
    matrix = factored(*LEADING)
    whole = (index if isinstance(index, tuple) else (index,)) if index is not Ellipsis else (...,)
    rows, columns = slice(None), slice(None)
    if len(whole) == 4:
        *whole, rows, columns = whole
    assert close(matrix[index].AB, matrix.AB[tuple(whole)][..., rows, :][..., columns])


def test_ints_on_the_matrix_axes_keep_them():
    matrix = factored(*LEADING)
    assert close(matrix[0, 1, 2].AB, matrix.AB[0, 1, 2:3])
    assert close(matrix[..., -1, 3].AB, matrix.AB[..., -1:, 3:4])
    with pytest.raises(ValueError, match="more indices"):
        matrix[0, 0, 0, 0, 0]
    with pytest.raises(ValueError, match="new axis"):
        matrix[0, 0, 0, None]


def test_corner_and_unsqueeze():
    matrix = factored(*LEADING)
    corner = matrix.AB[:2, :2, :2, :2]
    assert close(matrix.get_corner(2), corner) and close(get_corner(matrix, 2), corner)
    assert close(get_matrix_corner(matrix, 2).AB, corner)
    assert matrix.unsqueeze(1).shape == (2, 1, 3, 7, 6) and matrix.unsqueeze(-3).shape == (2, 3, 1, 7, 6)


def test_leading_axes_broadcast():
    matrix = FactoredMatrix(torch.randn(2, 1, 7, 4), torch.randn(3, 4, 6))
    assert matrix.shape == (2, 3, 7, 6) and matrix.A.shape == (2, 3, 7, 4) and matrix.B.shape == (2, 3, 4, 6)


def test_half_precision_is_decomposed_in_float32():
    matrix = FactoredMatrix(torch.randn(6, 4).bfloat16(), torch.randn(4, 6).bfloat16())
    assert matrix.S.dtype == torch.float32 and matrix.eigenvalues.dtype == torch.complex64
    assert matrix.AB.dtype == torch.bfloat16


def test_composition_scores():
    left, right = factored(2, left=7, inner=3, right=6), factored(5, left=6, inner=4, right=8)
    scores = composition_scores(left, right)
    assert scores.shape == (2, 5)
    expected = (left[1].AB @ right[3].AB).norm() / (left[1].AB.norm() * right[3].AB.norm())
    assert close(scores[1, 3], expected)
    assert close(composition_scores(left[:1], right[:1], broadcast_dims=False), scores[0, :1])
