"""Tokens as users have them: tensors, arrays, and lists of numbers."""

from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

from transformer_lens.hooked_transformer.input_error import InputError
from transformer_lens.utilities.indices import as_index

# A text or texts; or one row of tokens, or several.
TextOrTokens = str | list[Any] | tuple[Any, ...] | np.ndarray | Integer[Tensor, "pos"] | Integer[Tensor, "batch pos"]
# Embedding tables of every torch are indexed by these.
_INDEX_DTYPES = (torch.int64, torch.int32)


def is_text(input: Any) -> TypeGuard[str | list[str]]:
    """Says whether an input is a text, or a list or tuple of nothing but texts."""
    return isinstance(input, str) or (isinstance(input, (list, tuple)) and all(isinstance(item, str) for item in input))


def tokens_of(input: Any) -> Integer[Tensor, "batch pos"]:
    """Reads one row of tokens, or a batch of rows of equal length.

    Args:
        input: A tensor or a numpy array of integers, with or without a batch axis; a list of integers, which is one
            row; or a list of rows. Nothing is padded here: lists do not say on which side, or with what.

    Returns:
        The tokens; int64 and int32 keep their dtype, and a tensor of them is not copied.

    Raises:
        InputError: It is something else; the sentence says what to pass instead.
    """
    if isinstance(input, (list, tuple)):
        input = _of_list(input)
    elif isinstance(input, np.ndarray):
        if input.dtype.kind not in "iu":
            raise InputError(f"Tokens are integers, and this array is of {input.dtype}.{_advice(input.dtype.kind)}")
        input = torch.from_numpy(input.astype(np.int64))
    if not isinstance(input, Tensor):
        raise InputError(_what_else(input))
    if input.is_floating_point() or input.is_complex() or input.dtype == torch.bool:
        kind = "f" if input.is_floating_point() else "b"
        raise InputError(f"Tokens are integers, and this tensor is of {input.dtype}.{_advice(kind)}")
    if input.ndim not in (1, 2):
        raise InputError(
            f"Tokens are a row [pos] or a batch [batch pos], and these have the shape {tuple(input.shape)}: "
            + ("pass a list of one token." if input.ndim == 0 else "reshape them.")
        )
    batch = input[None] if input.ndim == 1 else input
    return batch if batch.dtype in _INDEX_DTYPES else batch.long()


def _of_list(items: list[Any] | tuple[Any, ...]) -> Tensor:
    if any(isinstance(item, str) for item in items):
        raise InputError("A list holds either texts or tokens, and this one holds both: pass a list of one kind.")
    are_rows = [isinstance(item, (list, tuple)) or (isinstance(item, (np.ndarray, Tensor)) and item.ndim > 0)
                for item in items]  # fmt: skip
    if not any(are_rows):
        return torch.tensor([_token(item) for item in items], dtype=torch.long)
    if not all(are_rows):
        raise InputError("A list holds either tokens or rows of tokens, and this one holds both.")
    rows = [tokens_of(item) for item in items]
    lengths = sorted({row.shape[1] for row in rows})
    if any(len(row) != 1 for row in rows):
        raise InputError("A list of rows holds one row an item, and an item of this one has a batch axis of its own.")
    if len(lengths) > 1:
        raise InputError(
            f"The rows have {lengths[0]} to {lengths[-1]} tokens: pad them to one length, and pass attention_mask= "
            "with 1 for tokens and 0 for padding; or pass the texts, which are padded for you."
        )
    return torch.cat([row.long().to(rows[0].device) for row in rows])


def _token(item: Any) -> int:
    try:
        return as_index(item, "a token")
    except TypeError as fact:
        raise InputError(f"{fact}: tokens are integers.") from None


def _advice(kind: str) -> str:
    if kind == "f":
        return (
            " A residual stream goes in with start_at_layer=; embeddings without positions are continued by generate."
        )
    return " Texts are passed as a list of strings." if kind in "USO" else ""


def _what_else(input: Any) -> str:
    kind = type(input).__name__
    if isinstance(input, Mapping):
        return (
            f"The input is a {kind}, and not tokens: pass {kind}['input_ids'] as the input and its 'attention_mask' as "
            "attention_mask=."
        )
    if isinstance(input, (int, np.integer)) and not isinstance(input, bool):
        return f"The input is the number {input}: pass [{input}] for a row of this one token."
    return (
        f"The input is a {kind}; it can be a text or a list of texts, or tokens: a tensor or numpy array of integers, "
        "or a list of them."
    )
