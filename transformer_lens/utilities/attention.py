"""The projections into heads."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def simple_attn_linear(
    input: Float[Tensor, "batch pos d_model"],
    w: Float[Tensor, "head d_model d_head"],
    b: Float[Tensor, "head d_head"],
) -> Float[Tensor, "batch pos head d_head"]:
    """Projects one input into every head, ``x @ w[head] + b[head]``.

    It is one matrix product, and copies no weight where `w` is a view of a stored ``[(head d_head), d_model]``.
    """
    heads, d_model, d_head = w.shape
    matrix = w.transpose(1, 2).reshape(heads * d_head, d_model)
    return F.linear(input, matrix, b.reshape(heads * d_head)).view(*input.shape[:-1], heads, d_head)


def clamp_qkv(q: Tensor, k: Tensor, v: Tensor, clip: float | int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Returns queries, keys and values within plus and minus `clip`; without one, as they are."""
    if clip is None:
        return q, k, v
    return q.clamp(-clip, clip), k.clamp(-clip, clip), v.clamp(-clip, clip)


def complex_attn_linear(
    input: Float[Tensor, "batch pos head d_model"],
    w: Float[Tensor, "head d_model d_head"],
    b: Float[Tensor, "head d_head"],
) -> Float[Tensor, "batch pos head d_head"]:
    """Projects each head's own input, ``x[head] @ w[head] + b[head]``."""
    return torch.einsum("bphm,hmd->bphd", input, w) + b
