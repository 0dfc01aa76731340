"""The only place that multiplies an activation by a weight.

Weights keep the order of the file they came from, so their shapes here are views. Each function finds the matrix that
the storage holds and multiplies by it; a weight is never copied. A packed weight is a matrix already: it comes with how
it is multiplied, and bitsandbytes does it.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from transformer_lens.loading.quantization import bitsandbytes
from transformer_lens.loading.quantization.packed import Compute


def _merges(outer: int, inner: int, tensor: Tensor) -> bool:
    """Whether two axes of a tensor can be seen as one."""
    return tensor.shape[outer] == 1 or tensor.stride(outer) == tensor.shape[inner] * tensor.stride(inner)


def _packed_product(x: Tensor, weight: Tensor, bias: Tensor | None, packing: Compute) -> Tensor:
    """Returns ``x W^T + bias`` for a packed W [d_out d_in] and what is beside it; the kernels take matrices only."""
    beside = packing.beside
    if beside is None:
        out = bitsandbytes.product(x.reshape(-1, x.shape[-1]), weight, bias, packing)
    else:
        out = beside.written(bitsandbytes.product(beside.read(x).reshape(-1, x.shape[-1]), weight, None, packing))
        out = out if bias is None else out + bias
    return out.reshape(*x.shape[:-1], packing.shape[0])


def affine(
    x: Float[Tensor, "... d_in"], weight: Tensor, bias: Float[Tensor, "d_out"] | None, packing: Compute | None = None
) -> Float[Tensor, "... d_out"]:
    """Returns ``x @ weight + bias``.

    Args:
        x: Activations.
        weight: [d_in d_out], or packed.
        bias: Added.
        packing: How a packed weight is multiplied; None for numbers.
    """
    if packing is not None:
        return _packed_product(x, weight, bias, packing)
    return F.linear(x, weight.t(), bias)


def into_heads(
    x: Float[Tensor, "batch pos d_model"],
    weight: Tensor,
    bias: Float[Tensor, "head d_head"],
    packing: Compute | None = None,
) -> Float[Tensor, "batch pos head d_head"]:
    """Returns ``x @ weight[head] + bias[head]`` for every head.

    Args:
        x: The residual stream.
        weight: [head d_model d_head], or packed.
        bias: Added.
        packing: How a packed weight is multiplied; None for numbers.
    """
    if packing is not None:
        return _packed_product(x, weight, bias.reshape(-1), packing).unflatten(-1, bias.shape)
    n_heads, d_model, d_head = weight.shape
    rows = weight.transpose(1, 2)
    if _merges(0, 1, rows):
        matrix = rows.as_strided((n_heads * d_head, d_model), (rows.stride(1), rows.stride(2)), rows.storage_offset())
        flat = F.linear(x, matrix, bias.reshape(-1))
        return flat.view(*x.shape[:-1], n_heads, d_head)
    # Heads interleaved with something else (GPT-NeoX): one product a head, x shared by all.
    shared = x.reshape(1, -1, d_model).expand(n_heads, -1, -1)
    return torch.bmm(shared, weight).permute(1, 0, 2).reshape(*x.shape[:-1], n_heads, d_head) + bias


def each_into_its_head(
    x: Float[Tensor, "batch pos head d_model"],
    weight: Float[Tensor, "head d_model d_head"],
    bias: Float[Tensor, "head d_head"] | None,
) -> Float[Tensor, "batch pos head d_head"]:
    """Returns ``x[head] @ weight[head] + bias[head]``: every head has an input of its own."""
    batch, pos, n_heads, d_model = x.shape
    by_head = x.permute(2, 0, 1, 3).reshape(n_heads, batch * pos, d_model)
    out = torch.bmm(by_head, weight).permute(1, 0, 2).reshape(batch, pos, n_heads, weight.shape[2])
    return out if bias is None else out + bias


def out_of_heads(
    z: Float[Tensor, "batch pos head d_head"],
    weight: Tensor,
    bias: Float[Tensor, "d_model"] | None,
    packing: Compute | None = None,
) -> Float[Tensor, "batch pos d_model"]:
    """Returns ``sum_head z[head] @ weight[head] + bias``.

    Args:
        z: What each head has gathered.
        weight: [head d_head d_model], or packed.
        bias: Added.
        packing: How a packed weight is multiplied; None for numbers.
    """
    if packing is not None:
        return _packed_product(z.flatten(2), weight, bias, packing)
    n_heads, d_head, d_model = weight.shape
    if _merges(0, 1, weight):
        matrix = weight.as_strided(
            (d_model, n_heads * d_head), (weight.stride(2), weight.stride(1)), weight.storage_offset()
        )
    else:
        matrix = weight.reshape(n_heads * d_head, d_model).t()
    return F.linear(z.flatten(2), matrix, bias)


def each_out_of_its_head(
    z: Float[Tensor, "batch pos head d_head"], weight: Float[Tensor, "head d_head d_model"]
) -> Float[Tensor, "batch pos head d_model"]:
    """Returns ``z[head] @ weight[head]``, what every head writes."""
    batch, pos, n_heads, d_head = z.shape
    by_head = z.permute(2, 0, 1, 3).reshape(n_heads, batch * pos, d_head)
    return torch.bmm(by_head, weight).view(n_heads, batch, pos, -1).permute(1, 2, 0, 3)
