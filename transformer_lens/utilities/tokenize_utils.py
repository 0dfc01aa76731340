"""Tokens, their padding and their BOS."""

import copy
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Integer
from torch import Tensor

from transformer_lens.utilities.hf_utils import keep_single_column
from transformer_lens.utilities.tensors import get_cumsum_along_dim  # noqa: F401  upstream has it here


def padding_of(
    tokens: Integer[Tensor, "batch pos"], pad_token_id: int | None, padding_side: str, own_run: int | None = None
) -> Int[Tensor, "batch"]:
    """Counts the padding of each row of a batch that was padded to its longest row.

    Padding is a run of the padding token at the padded side, and the longest row has none. So of each row's run, what
    is longer than the shortest run is padding: that a text itself begins with BOS, or ends with EOS, does no harm where
    that is the padding token as well. One row has none, and so has a batch of single tokens, which is what decoding
    with a cache feeds in.

    Args:
        tokens: The rows.
        pad_token_id: The padding token; None pads nothing.
        padding_side: "left" or "right".
        own_run: How much of each run is text, where that is known; None takes the shortest run.
    """
    batch, length = tokens.shape
    if pad_token_id is None or batch < 2 or length < 2:
        return torch.zeros(batch, dtype=torch.long, device=tokens.device)
    is_pad = (tokens if padding_side == "left" else tokens.flip(1)) == pad_token_id
    runs = is_pad.long().cumprod(dim=1).sum(dim=1)
    return runs - runs.min() if own_run is None else (runs - own_run).clamp(min=0)


def mask_of(padding: Int[Tensor, "batch"], length: int, padding_side: str) -> Int[Tensor, "batch pos"]:
    """Marks tokens by 1 and padding by 0, in rows of `length` with so much padding each."""
    is_text = torch.arange(length, device=padding.device) >= padding[:, None]
    return (is_text if padding_side == "left" else is_text.flip(1)).long()


def get_attention_mask(
    tokenizer: Any, tokens: Integer[Tensor, "batch pos"], prepend_bos: bool, padding_side: str | None = None
) -> Integer[Tensor, "batch pos"]:
    """Marks tokens by 1 and padding by 0, by the rule of `padding_of`.

    Args:
        tokenizer: Says which token is padding; one without a pad token pads nothing.
        tokens: The rows.
        prepend_bos: The text of every row begins with one BOS. That counts where padding is on the left and BOS is the
            padding token: of several rows, all before the last token of each run is padding then, also where they
            share some (as part of a larger batch does).
        padding_side: "left" or "right"; None takes the tokenizer's.
    """
    side = padding_side or tokenizer.padding_side
    bos_is_pad = tokenizer.bos_token_id == tokenizer.pad_token_id
    own_run = 1 if prepend_bos and side == "left" and bos_is_pad else None
    padding = padding_of(tokens, tokenizer.pad_token_id, side, own_run)
    return mask_of(padding, tokens.shape[1], side).to(tokens.dtype)


def get_tokens_with_bos_removed(
    tokenizer: Any, tokens: Int[Tensor, "batch pos"], padding_side: str | None = None
) -> Int[Tensor, "batch pos_minus_1"]:
    """Takes the BOS (or CLS) out of every row; rows padded on the left move one to the left behind their padding.

    Args:
        tokenizer: Says which tokens are BOS and padding.
        tokens: Rows that each have a BOS in front of their text; where none has, or the tokenizer knows no such token,
            there is nothing to take out, and they are returned as they are.
        padding_side: "left" or "right"; None takes the tokenizer's.

    Raises:
        ValueError: Some of the rows have one, and others have not.
    """
    firsts = [token for token in (tokenizer.bos_token_id, tokenizer.cls_token_id) if token is not None]
    is_bos = torch.isin(tokens, torch.tensor(firsts, dtype=tokens.dtype, device=tokens.device))
    position = torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)
    if (padding_side or tokenizer.padding_side) == "left" and tokenizer.pad_token_id is not None:
        run = (tokens == tokenizer.pad_token_id).long().cumprod(dim=1).sum(dim=1)
        # The last token of the run is the BOS where both are the same token.
        position = (run - 1).clamp(min=0) if tokenizer.pad_token_id in firsts else run.clamp(max=tokens.shape[1] - 1)
    if tokens.numel() == 0 or not firsts:
        return tokens
    has_bos = is_bos.gather(1, position[:, None])[:, 0]
    if not has_bos.any():
        return tokens
    if not has_bos.all():
        row = int((~has_bos).nonzero()[0])
        raise ValueError(f"row {row} has no BOS token in front of its text, and others have: {tokens[row].tolist()}")
    stays = torch.ones_like(tokens, dtype=torch.bool).scatter(1, position[:, None], False)
    return tokens[stays].view(tokens.shape[0], -1)


def get_input_with_manually_prepended_bos(bos_token: Any, input: str | list[str]) -> str | list[str]:
    """Writes the BOS token in front of a text, or of each of several.

    Args:
        bos_token: The token as a string, or a tokenizer that has one.
        input: The text or texts.
    """
    bos = bos_token if isinstance(bos_token, str) else bos_token.bos_token
    return bos + input if isinstance(input, str) else [bos + text for text in input]


def get_tokenizer_with_bos(tokenizer: Any) -> Any:
    """Returns a tokenizer that puts BOS in front itself, where its class can.

    Args:
        tokenizer: A tokenizer, which is left as it is.

    Returns:
        The same one where its ``add_bos_token`` is set already or it has no BOS token, otherwise a changed copy.
    """
    if tokenizer.init_kwargs.get("add_bos_token", False) or tokenizer.bos_token is None:
        return tokenizer
    changed = copy.deepcopy(tokenizer)
    changed.init_kwargs["add_bos_token"] = True
    changed.add_bos_token = True
    return changed


def tokenize_and_concatenate(
    dataset: Any,
    tokenizer: Any,
    streaming: bool = False,
    max_length: int = 1024,
    column_name: str = "text",
    add_bos_token: bool = True,
    num_proc: int | None = 10,
    set_format: bool = True,
) -> Any:
    """Tokenizes texts, joins them with EOS, and cuts the whole into rows of equal length.

    Each text is tokenized by itself. What is left over at the end of a batch of texts is dropped; a batch too short
    for one row gives one, padded on the right.

    Args:
        dataset: A ``datasets.Dataset`` or ``IterableDataset``.
        tokenizer: A tokenizer with EOS, and BOS if `add_bos_token`.
        streaming: The dataset is an ``IterableDataset``.
        max_length: Length of the rows, in tokens, BOS included.
        column_name: Where the texts are; other columns are dropped.
        add_bos_token: Each row begins with BOS.
        num_proc: Processes; not used when streaming.
        set_format: The rows come out as tensors; not used when streaming.

    Returns:
        A dataset with one column, "tokens".
    """
    width = max_length - 1 if add_bos_token else max_length

    def rows(examples: dict[str, list[str]]) -> dict[str, np.ndarray]:
        # Texts are cut into rows below: that one is longer than the model's context is no matter (verbose=False).
        encoded = tokenizer(examples[column_name], add_special_tokens=False, verbose=False)["input_ids"]
        tokens = [token for text in encoded for token in (*text, tokenizer.eos_token_id)][:-1]
        if len(tokens) < width:
            pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
            tokens += [pad] * (width - len(tokens))
        table = np.array(tokens[: len(tokens) // width * width], dtype=np.int64).reshape(-1, width)
        if add_bos_token:
            table = np.concatenate([np.full((len(table), 1), tokenizer.bos_token_id), table], axis=1)
        return {"tokens": table}

    texts = keep_single_column(dataset, column_name)
    if streaming:
        return texts.map(rows, batched=True, remove_columns=[column_name])
    tokenized = texts.map(rows, batched=True, num_proc=num_proc, remove_columns=[column_name])
    if set_format:
        tokenized.set_format(type="torch", columns=["tokens"])
    return tokenized
