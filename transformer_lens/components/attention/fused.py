"""Attention in one call, where nothing looks at scores or pattern."""

from __future__ import annotations

import math

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

# A built-in function has no signature to inspect; its documentation starts with it.
_TAKES_GROUPS = "enable_gqa" in (F.scaled_dot_product_attention.__doc__ or "")


def fused_attention(
    q: Float[Tensor, "batch query_pos head d_head"],
    k: Float[Tensor, "batch key_pos kv_head d_head"],
    v: Float[Tensor, "batch key_pos kv_head d_head"],
    visible: Bool[Tensor, "*batch query_pos key_pos"] | None,
    is_causal: bool,
    divisor: float,
) -> Float[Tensor, "batch query_pos head d_head"]:
    """Returns ``softmax(q k^T / divisor) v`` without its scores ever being stored.

    Args:
        q: Queries.
        k: Keys, of every head or of groups of heads.
        v: Values.
        visible: True where a query sees a key; None with `is_causal` or where everything is seen.
        is_causal: Whether queries and keys are the same positions and see what is not after them.
        divisor: Of the scores.
    """
    d_head = q.shape[-1]
    if divisor != math.sqrt(d_head):
        q = q * (math.sqrt(d_head) / divisor)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    sees_any: Tensor | None = None
    if visible is not None:
        if visible.ndim == 3:
            visible = visible.unsqueeze(1)
        # A softmax over nothing has no value and no gradient: such a query looks at everything, and its result is zero.
        sees_any = visible.any(-1, keepdim=True)
        visible = visible | ~sees_any
    batch, n_heads, length, _ = q.shape
    n_kv = k.shape[1]
    group = n_heads // n_kv
    if group > 1 and length == 1:
        # One query a head: the heads of a group stand where positions would, and no key is repeated.
        z = F.scaled_dot_product_attention(q.reshape(batch, n_kv, group, d_head), k, v, attn_mask=visible)
        z = z.reshape(batch, n_heads, 1, d_head)
    elif group > 1 and _TAKES_GROUPS:
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=is_causal, enable_gqa=True)
    else:
        if group > 1:
            k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=is_causal)
    if sees_any is not None:
        z = z.masked_fill(~sees_any, 0.0)
    return z.transpose(1, 2)
