"""Comparisons of factored matrices."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from transformer_lens.utilities.tensors import get_corner


def composition_scores(left: Any, right: Any, broadcast_dims: bool = True) -> Float[Tensor, "..."]:
    """Computes ``|left @ right| / (|left| |right|)`` in Frobenius norms (Elhage et al. 2021).

    Args:
        left: A `FactoredMatrix`.
        right: A `FactoredMatrix` with as many rows as `left` has columns.
        broadcast_dims: Compare each of `left`'s leading indices with each of `right`'s; otherwise like with like.

    Returns:
        Scores between 0 and 1, with `left`'s leading axes and then `right`'s; or with the ones they share.
    """
    if broadcast_dims:
        left_axes, right_axes = left.ndim - 2, right.ndim - 2
        for _ in range(left_axes):
            right = right.unsqueeze(0)
        for _ in range(right_axes):
            left = left.unsqueeze(left_axes)
    assert left.rdim == right.ldim, f"inner axes must agree, but the shapes are {left.shape} and {right.shape}"
    both = left.collapse_l() @ right.collapse_r()
    scores: Tensor = both.norm(dim=(-2, -1)) / (left.norm() * right.norm())
    return scores


def get_matrix_corner(matrix: Any, n: int = 3) -> Any:
    """Returns the first `n` indices along every axis of a `FactoredMatrix`, as one."""
    return get_corner(matrix, n)
