"""A product of two matrices that is never multiplied out unless someone asks for it."""

from typing import Any, Protocol, Union, runtime_checkable

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from transformer_lens import utilities as utils
from transformer_lens.utilities import tensors as tensor_utils
from transformer_lens.utilities.tensors import get_corner

__all__ = ["FactoredMatrix", "TensorLike", "tensor_utils", "utils"]

Scalar = int | float | Tensor


@runtime_checkable
class TensorLike(Protocol):
    """What stands for a tensor in a product of matrices."""

    @property
    def ndim(self) -> int:
        """Number of axes."""

    @property
    def shape(self) -> Any:
        """Lengths of the axes."""

    def size(self, dim: int) -> int:
        """Returns the length of an axis."""

    def unsqueeze(self, dim: int) -> Any:
        """Returns it with a new axis of length one."""

    def squeeze(self, dim: int) -> Any:
        """Returns it without an axis of length one."""

    def broadcast_to(self, shape: Any) -> Any:
        """Returns it with axes of length one repeated."""

    def __matmul__(self, other: Any) -> Any:
        """Returns a product."""


class FactoredMatrix:
    """``A @ B`` of low rank, such as a head's ``W_V @ W_O``, kept as its two factors.

    Singular values, eigenvalues and norms are computed from matrices as small as the inner axis. Leading axes, such as
    layers and heads, are those of `A` and `B` broadcast together.

    Attributes:
        A: The left factor, ``[..., ldim, mdim]``.
        B: The right factor, ``[..., mdim, rdim]``.
        ldim, mdim, rdim: Lengths of these axes.
        has_leading_dims: There are axes before the last two.
        shape: That of the product.
    """

    def __init__(self, A: Float[Tensor, "... ldim mdim"], B: Float[Tensor, "... mdim rdim"]) -> None:
        assert A.shape[-1] == B.shape[-2], f"inner axes must agree, but A is {list(A.shape)} and B is {list(B.shape)}"
        leading = torch.broadcast_shapes(A.shape[:-2], B.shape[:-2])
        self.A = A.expand(*leading, *A.shape[-2:])
        self.B = B.expand(*leading, *B.shape[-2:])
        self.ldim, self.mdim, self.rdim = A.shape[-2], A.shape[-1], B.shape[-1]
        self.has_leading_dims = len(leading) > 0
        self.shape = torch.Size([*leading, self.ldim, self.rdim])
        self._svd: tuple[Tensor, Tensor, Tensor] | None = None

    def __matmul__(self, other: Union[Tensor, "FactoredMatrix"]) -> Any:
        """Multiplies from the right: by a vector, giving a tensor; by a matrix of either kind, giving a factored one.

        The result's inner axis is the shortest of those there are.
        """
        if isinstance(other, FactoredMatrix):
            return (self @ other.A) @ other.B
        assert self.rdim == other.shape[0 if other.ndim < 2 else -2], self._mismatch(other)
        if other.ndim < 2:
            return (self.A @ (self.B @ other)[..., None])[..., 0]
        if self.rdim > self.mdim:
            return FactoredMatrix(self.A, self.B @ other)
        return FactoredMatrix(self.AB, other)

    def __rmatmul__(self, other: Union[Tensor, "FactoredMatrix"]) -> Any:
        """Multiplies from the left, likewise."""
        if isinstance(other, FactoredMatrix):
            return other.A @ (other.B @ self)
        assert other.shape[-1] == self.ldim, self._mismatch(other)
        if other.ndim < 2:
            return ((other @ self.A)[..., None, :] @ self.B)[..., 0, :]
        if self.ldim > self.mdim:
            return FactoredMatrix(other @ self.A, self.B)
        return FactoredMatrix(other, self.AB)

    def _mismatch(self, other: Tensor) -> str:
        return f"inner axes must agree, but the shapes are {list(self.shape)} and {list(other.shape)}"

    def __mul__(self, scalar: Scalar) -> "FactoredMatrix":
        """Multiplies by a number, or by a tensor of one element."""
        if isinstance(scalar, Tensor):
            assert scalar.numel() == 1, f"* takes a number, not a tensor of shape {list(scalar.shape)}; use @"
            scalar = scalar.reshape(())
        return FactoredMatrix(self.A * scalar, self.B)

    def __rmul__(self, scalar: Scalar) -> "FactoredMatrix":
        """Multiplies by a number, or by a tensor of one element."""
        return self * scalar

    @property
    def AB(self) -> Float[Tensor, "*leading ldim rdim"]:
        """The product, multiplied out."""
        return self.A @ self.B

    @property
    def BA(self) -> Float[Tensor, "*leading mdim mdim"]:
        """The product the other way round, which has the same eigenvalues but for zeros; of square matrices only."""
        assert self.rdim == self.ldim, f"the matrix must be square, but its shape is {list(self.shape)}"
        return self.B @ self.A

    @property
    def T(self) -> "FactoredMatrix":
        """The transpose of the last two axes."""
        return FactoredMatrix(self.B.transpose(-2, -1), self.A.transpose(-2, -1))

    def svd(
        self,
    ) -> tuple[
        Float[Tensor, "*leading ldim rank"], Float[Tensor, "*leading rank"], Float[Tensor, "*leading rdim rank"]
    ]:
        """Decomposes into ``U @ diag(S) @ V.T``, and keeps the result.

        Both factors are reduced by QR first, so that the decomposition itself is of a matrix no larger than the inner
        axis. Half precision is computed in float32, and stays so.

        Returns:
            ``U``, ``S`` in falling order, and ``V``, which is not transposed.
        """
        if self._svd is None:
            left, left_core = torch.linalg.qr(_full(self.A))
            right, right_core = torch.linalg.qr(_full(self.B).transpose(-2, -1))
            U, S, Vh = torch.linalg.svd(left_core @ right_core.transpose(-2, -1), full_matrices=False)
            self._svd = left @ U, S, right @ Vh.transpose(-2, -1)
        return self._svd

    @property
    def U(self) -> Float[Tensor, "*leading ldim rank"]:
        """The left singular vectors, as columns."""
        return self.svd()[0]

    @property
    def S(self) -> Float[Tensor, "*leading rank"]:
        """The singular values, in falling order."""
        return self.svd()[1]

    @property
    def V(self) -> Float[Tensor, "*leading rdim rank"]:
        """The right singular vectors, as columns."""
        return self.svd()[2]

    @property
    def Vh(self) -> Float[Tensor, "*leading rdim rank"]:
        """The right singular vectors, as columns: `V`, under the name upstream gave it."""
        return self.svd()[2]

    @property
    def eigenvalues(self) -> Complex[Tensor, "*leading mdim"]:
        """The eigenvalues of a square matrix, those of `BA`; the remaining ones are zero."""
        return torch.linalg.eigvals(_full(self.BA))

    def norm(self) -> Float[Tensor, "*leading"]:
        """Computes the Frobenius norm, from the singular values."""
        return self.S.norm(dim=-1)

    def make_even(self) -> "FactoredMatrix":
        """Rewrites the same product with factors ``U sqrt(S)`` and ``sqrt(S) V.T``, so that their norms are equal."""
        U, S, V = self.svd()
        root = S.sqrt()
        return FactoredMatrix(U * root[..., None, :], root[..., :, None] * V.transpose(-2, -1))

    def collapse_l(self) -> Float[Tensor, "*leading rank rdim"]:
        """Leaves out the orthogonal factor on the left: ``S V.T``, with the same norms and right singular vectors."""
        _, S, V = self.svd()
        return S[..., :, None] * V.transpose(-2, -1)

    def collapse_r(self) -> Float[Tensor, "*leading ldim rank"]:
        """Leaves out the orthogonal factor on the right: ``U S``."""
        U, S, _ = self.svd()
        return U * S[..., None, :]

    def __getitem__(self, idx: Any) -> "FactoredMatrix":
        """Indexes the product's axes; an int on one of the last two keeps the axis, with length one.

        Raises:
            ValueError: There are more indices than axes, or a new axis is asked for behind the leading ones.
        """
        leading, matrix = self._split_index(idx if isinstance(idx, tuple) else (idx,))
        A, B = self.A[leading], self.B[leading]
        if len(matrix) > 0:
            A = A[..., _keeping_axis(matrix[0]), :]
        if len(matrix) > 1:
            B = B[..., _keeping_axis(matrix[1])]
        return FactoredMatrix(A, B)

    def _split_index(self, idx: tuple[Any, ...]) -> tuple[tuple[Any, ...], list[Any]]:
        missing = self.ndim - sum(_axes_taken(item) for item in idx)
        if missing < 0:
            raise ValueError(f"{idx} has more indices than a FactoredMatrix of shape {list(self.shape)} has axes")
        leading: list[Any] = []
        matrix: list[Any] = []
        axis = 0
        for item in idx:
            for part in [slice(None)] * missing if item is Ellipsis else [item]:
                if axis < self.ndim - 2 or (part is None and axis == self.ndim - 2 and not matrix):
                    leading.append(part)
                elif part is None:
                    raise ValueError("a new axis can only be put before the last two of a FactoredMatrix")
                else:
                    matrix.append(part)
                axis += _axes_taken(part)
        return tuple(leading), matrix

    def __repr__(self) -> str:
        return f"FactoredMatrix: Shape({self.shape}), Hidden Dim({self.mdim})"

    @property
    def ndim(self) -> int:
        """Number of axes of the product."""
        return len(self.shape)

    @property
    def pair(self) -> tuple[Float[Tensor, "*leading ldim mdim"], Float[Tensor, "*leading mdim rdim"]]:
        """The two factors."""
        return self.A, self.B

    def get_corner(self, k: int = 3) -> Float[Tensor, "..."]:
        """Multiplies out the first `k` indices along every axis."""
        corner: FactoredMatrix = get_corner(self, k)
        return corner.AB

    def unsqueeze(self, k: int) -> "FactoredMatrix":
        """Puts a new leading axis of length one at place `k`; a negative `k` counts from the product's end."""
        return FactoredMatrix(self.A.unsqueeze(k), self.B.unsqueeze(k))


def _full(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _keeping_axis(index: Any) -> Any:
    if isinstance(index, int) and not isinstance(index, bool):
        return slice(index, index + 1 if index != -1 else None)
    return index


def _axes_taken(index: Any) -> int:
    if index is None or index is Ellipsis:
        return 0
    return index.ndim if isinstance(index, Tensor) and index.dtype == torch.bool else 1
