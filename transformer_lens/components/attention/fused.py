"""Attention in one call, where nothing looks at scores or pattern."""

from __future__ import annotations

import math

import torch
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
    bias: Float[Tensor, "head query_pos key_pos"] | None = None,
    sinks: Float[Tensor, head] | None = None,
) -> Float[Tensor, "batch query_pos head d_head"]:
    """Returns ``softmax(q k^T / divisor + bias) v`` without its scores ever being stored.

    A sink is one more key, of score ``sinks[head]`` and value zero.

    Args:
        q: Queries.
        k: Keys, of every head or of groups of heads.
        v: Values.
        visible: True where a query sees a key; None with `is_causal` or where everything is seen.
        is_causal: Whether queries and keys are the same positions and see what is not after them.
        divisor: Of the scores.
        bias: Added to the scores.
        sinks: Scores of sinks.
    """
    d_head = q.shape[-1]
    if divisor != math.sqrt(d_head):
        q = q * (math.sqrt(d_head) / divisor)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if is_causal and (bias is not None or sinks is not None):
        is_causal, visible = False, torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    sees_any: Tensor | None = None
    if visible is not None:
        if visible.ndim == 3:
            visible = visible.unsqueeze(1)
        # A softmax over nothing has no value and no gradient: such a query looks at everything, and its result is zero.
        sees_any = visible.any(-1, keepdim=True)
        visible = visible | ~sees_any
    added = None if bias is None and sinks is None else _added_scores(q, k, visible, bias)
    if added is None:
        z = _attend(q, k, v, visible, is_causal)
    elif sinks is None:
        z = _attend(q, k, v, added, False)
    else:
        column = sinks.to(added.dtype)[:, None, None].expand(*added.shape[:-1], 1)
        z = _attend(q, F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1)), torch.cat([added, column], dim=-1), False)
    if sees_any is not None:
        z = z.masked_fill(~sees_any, 0.0)
    return z.transpose(1, 2)


def _added_scores(q: Tensor, k: Tensor, visible: Tensor | None, bias: Tensor | None) -> Tensor:
    """Returns what is added to the scores of every head: the bias, and minus infinity where a key is not seen."""
    batch, n_heads, length, _ = q.shape
    added = q.new_zeros(n_heads, length, k.shape[2]) if bias is None else bias.to(q.dtype)
    if visible is None:
        return added.expand(batch, -1, -1, -1)
    return added.masked_fill(~visible, -math.inf).expand(batch, -1, -1, -1)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
    """Returns attention of [batch head pos d_head] tensors; keys and values may have fewer heads."""
    batch, n_heads, length, d_head = q.shape
    n_kv = k.shape[1]
    group = n_heads // n_kv
    if group > 1 and length == 1:
        # One query a head: the heads of a group stand where positions would, and no key is repeated.
        if mask is not None and mask.shape[1] == n_heads:
            mask = mask.reshape(batch, n_kv, group, mask.shape[-1])
        z = F.scaled_dot_product_attention(q.reshape(batch, n_kv, group, d_head), k, v, attn_mask=mask)
        return z.reshape(batch, n_heads, 1, d_head)
    if group > 1 and _TAKES_GROUPS:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal, enable_gqa=True)
    if group > 1:
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal)
