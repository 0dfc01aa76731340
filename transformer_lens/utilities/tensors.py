"""Small operations on tensors and matrices."""

from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Value = TypeVar("Value")


def to_numpy(tensor: Any) -> np.ndarray:
    """Makes a numpy array of a tensor, an array, a list or tuple, or a single number or string.

    A tensor is detached and brought to the CPU; bfloat16, which numpy lacks, becomes float32.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(tensor, np.ndarray):
        return tensor
    if isinstance(tensor, (list, tuple)):
        return np.array([to_numpy(item) if isinstance(item, Tensor) else item for item in tensor])
    if isinstance(tensor, Tensor):
        tensor = tensor.detach().cpu()
        return np.asarray((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())
    if isinstance(tensor, (int, float, str)):
        return np.array(tensor)
    raise ValueError(f"cannot make a numpy array of a {type(tensor).__name__}")


def get_corner(tensor: Any, n: int = 3) -> Any:
    """Returns the first `n` indices along every axis, of a tensor, an array or a `FactoredMatrix`."""
    return tensor[tuple(slice(n) for _ in range(tensor.ndim))]


def remove_batch_dim(tensor: Tensor) -> Tensor:
    """Removes the first axis where its length is one; otherwise returns the tensor as it is."""
    return tensor.squeeze(0)


def transpose(tensor: Float[Tensor, "... a b"]) -> Float[Tensor, "... b a"]:
    """Swaps the last two axes, as a view."""
    return tensor.transpose(-1, -2)


def is_square(x: Tensor) -> bool:
    """Says whether the tensor is a square matrix."""
    return x.ndim == 2 and x.shape[0] == x.shape[1]


def is_lower_triangular(x: Tensor) -> bool:
    """Says whether the tensor is a square matrix with nothing but zeros above its diagonal."""
    return is_square(x) and torch.equal(x, x.tril())


def check_structure(t1: Tensor, t2: Tensor, *, verbose: bool = False) -> None:
    """Prints whether two matrices rise and fall alike between neighbouring rows, and between neighbouring columns.

    Prints ``PASSED``, or the numbers of the first of each pair of rows, or of columns, that disagree.

    Args:
        t1: A matrix.
        t2: A matrix of the same shape.
        verbose: Print the comparisons that disagree as well.
    """
    assert t1.shape == t2.shape and t1.ndim == 2, "two matrices of one shape are needed"
    agree = True
    for kind, a, b in (("row", t1, t2), ("column", t1.T, t2.T)):
        if verbose:
            print(f"Checking {kind}s")
        a_falls, b_falls = a[:-1] >= a[1:], b[:-1] >= b[1:]
        mismatch = (a_falls != b_falls).any(dim=1).nonzero().flatten().tolist()
        for i in mismatch if verbose else ():
            print(f"\t{kind}s {i}:{i + 1}\n\tt1: {a_falls[i].tolist()}\n\tt2: {b_falls[i].tolist()}")
        if mismatch:
            agree = False
            print(f"{kind} mismatch: {mismatch}")
    if agree:
        print("PASSED")


def get_cumsum_along_dim(tensor: Tensor, dim: int, reverse: bool = False) -> Tensor:
    """Sums cumulatively along an axis, from its end with `reverse`."""
    return tensor.flip(dim).cumsum(dim).flip(dim) if reverse else tensor.cumsum(dim)


def get_offset_position_ids(
    past_kv_pos_offset: int, attention_mask: Int[Tensor, "batch offset_pos"]
) -> Int[Tensor, "batch pos"]:
    """Counts each token's position among its row's attended tokens, from zero.

    Args:
        past_kv_pos_offset: Tokens that are in the key-value cache already; their positions are left out of the result.
        attention_mask: 1 for tokens, 0 for padding, those in the cache included.

    Returns:
        The positions; padding in front has 0.
    """
    positions = attention_mask.cumsum(dim=1) - 1
    return positions.clamp(min=0)[:, past_kv_pos_offset:]


def repeat_along_head_dimension(
    tensor: Float[Tensor, "batch pos d_model"], n_heads: int, clone_tensor: bool = True
) -> Float[Tensor, "batch pos head d_model"]:
    """Gives each head its own copy; without `clone_tensor`, a view in which they all share one."""
    repeated = tensor.unsqueeze(-2).expand(-1, -1, n_heads, -1)
    return repeated.clone(memory_format=torch.contiguous_format) if clone_tensor else repeated


def filter_dict_by_prefix(dictionary: dict[str, Value], prefix: str) -> dict[str, Value]:
    """Picks the entries under a dotted prefix, and takes the prefix off their names."""
    prefix = prefix if prefix.endswith(".") else prefix + "."
    return {name[len(prefix) :]: value for name, value in dictionary.items() if name.startswith(prefix)}
