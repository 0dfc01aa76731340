"""Rotary position embedding, in every way of stretching it.

Angles are ``position * f_j``, ``f_j = theta^(-2j / D)`` for j < D / 2 (Su et al., 2021). Tables of cosines and sines
are shared between all layers and models of the same numbers, and hold only positions that have been used.
"""

from collections import OrderedDict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from transformer_lens.anatomy import Rotary
from transformer_lens.utilities.rotary_frequencies import rotary_frequencies

_MAX_TABLES = 16
_tables: OrderedDict[tuple[Any, ...], tuple[Tensor, Tensor]] = OrderedDict()


def inverse_frequencies(rotary: Rotary, length: int) -> tuple[Float[Tensor, "half"], float]:
    """Returns ``f_j`` of a sequence of `length` tokens, and the factor of its cosines and sines."""
    scaling = None if rotary.scaling is None else dict(rotary.scaling)
    return rotary_frequencies(rotary.dimensions, rotary.theta, scaling, length)


def _length_class(rotary: Rotary, length: int) -> int:
    """Returns the same number for lengths with the same angles."""
    if rotary.scaling is None or not rotary.depends_on_length:
        return 0
    scaling = dict(rotary.scaling)
    if scaling["rope_type"] == "longrope":
        return int(length > scaling["original_max_position_embeddings"])
    return int(max(length, scaling["max_position_embeddings"]))


def rotary_table(
    rotary: Rotary, length: int, device: torch.device, dtype: torch.dtype
) -> tuple[Float[Tensor, "some_pos half"], Float[Tensor, "some_pos half"]]:
    """Returns cosines and sines for at least `length` positions of a sequence of `length` tokens."""
    key = (rotary.dimensions, rotary.theta, rotary.scaling, _length_class(rotary, length), device, dtype)
    known = _tables.get(key)
    if known is None or known[0].shape[0] < length:
        rows = max(64, 1 << (length - 1).bit_length())
        # Tables outlive this call: what inference mode makes could never be used in training.
        with torch.inference_mode(False):
            frequencies, factor = inverse_frequencies(rotary, length)
            angles = torch.arange(rows, dtype=torch.float32)[:, None] * frequencies
            known = ((angles.cos() * factor).to(device, dtype), (angles.sin() * factor).to(device, dtype))
        _tables[key] = known
        while len(_tables) > _MAX_TABLES:
            _tables.popitem(last=False)
    _tables.move_to_end(key)
    return known


def rotate(
    x: Float[Tensor, "batch pos head d_head"],
    cos: Float[Tensor, "*batch pos half"],
    sin: Float[Tensor, "*batch pos half"],
    adjacent_pairs: bool,
) -> Float[Tensor, "batch pos head d_head"]:
    """Rotates each pair of the first ``2 * half`` dimensions by its angle; the rest passes.

    Pairs are dimensions j and j + half, or 2j and 2j + 1 if `adjacent_pairs`.
    """
    half = cos.shape[-1]
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    turned, rest = x[..., : 2 * half], x[..., 2 * half :]
    if adjacent_pairs:
        first, second = turned[..., 0::2], turned[..., 1::2]
        out = torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-1).flatten(-2)
    else:
        first, second = turned[..., :half], turned[..., half:]
        out = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return torch.cat((out, rest), dim=-1) if rest.shape[-1] else out
