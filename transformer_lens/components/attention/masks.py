"""Which keys a query sees, computed for the positions at hand."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def visible_keys(
    query_length: int,
    key_length: int,
    window: int | None,
    causal: bool,
    attention_mask: Int[Tensor, "batch key_pos"] | None,
    device: torch.device,
) -> Bool[Tensor, "*batch query_pos key_pos"] | None:
    """Returns True where a query sees a key, or None where every query sees every key.

    Queries are the last positions of the keys. Key j is visible to query i when ``0 <= i - j < window`` (of causal
    attention) and it is not padding. Distances count positions of the padded row, as in transformers.
    """
    offset = key_length - query_length
    visible: Tensor | None = None
    if causal and (query_length > 1 or (window is not None and window < key_length)):
        distance = (
            torch.arange(offset, key_length, device=device)[:, None] - torch.arange(key_length, device=device)[None, :]
        )
        visible = distance >= 0
        if window is not None and window < key_length:
            visible = visible & (distance < window)
    if attention_mask is not None:
        real = attention_mask.to(device).bool()[:, None, :].expand(-1, query_length, -1)
        visible = real if visible is None else visible & real
    return visible


def alibi_slopes(n_heads: int, device: torch.device) -> Float[Tensor, "head"]:
    """Returns the slope of each head.

    2^(-8k/p) for the first p = 2^floor(log2 n) heads, and every other slope of twice as many heads for the rest.
    Source: Press et al., 2021, and the BLOOM implementation for other numbers of heads.
    """
    power = 1 << (n_heads.bit_length() - 1)
    slopes = [2 ** (-8 * k / power) for k in range(1, power + 1)]
    slopes += [2 ** (-8 * (2 * k - 1) / (2 * power)) for k in range(1, n_heads - power + 1)]
    return torch.tensor(slopes, dtype=torch.float32, device=device)


def alibi_bias(
    n_heads: int, query_length: int, key_length: int, device: torch.device, rounded: bool = False
) -> Float[Tensor, "head query_pos key_pos"]:
    """Returns ``-slope * distance`` for keys before their query, else 0.

    `rounded`: ``slope * key position`` instead, rounded to bfloat16 as Falcon computes it. A row differs from the
    other by a constant, which a softmax does not see, and by the rounding.
    """
    if rounded:
        slopes = alibi_slopes(n_heads, device).to(torch.bfloat16)
        product = slopes[:, None] * torch.arange(key_length, device=device)
        return product.to(torch.bfloat16).float()[:, None, :].expand(-1, query_length, -1)
    distance = (
        torch.arange(key_length, device=device)[None, :]
        - torch.arange(key_length - query_length, key_length, device=device)[:, None]
    )
    return alibi_slopes(n_heads, device)[:, None, None] * distance.clamp(max=0)
