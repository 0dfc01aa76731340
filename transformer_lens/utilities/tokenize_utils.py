"""Tokens, their padding and their BOS."""

import copy
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from transformer_lens.utilities.hf_utils import keep_single_column
from transformer_lens.utilities.tensors import attended


def get_attention_mask(
    tokenizer: Any, tokens: Int[Tensor, "batch pos"], prepend_bos: bool, padding_side: str | None = None
) -> Int[Tensor, "batch pos"]:
    """Marks tokens by 1 and padding by 0.

    Padding is what equals the pad token at one end of a row; the same token elsewhere is text. Where BOS and the pad
    token are the same, and padding is on the left, the last of them is taken for the BOS.

    Args:
        tokenizer: Says which token is padding; one without a pad token pads nothing.
        tokens: The rows.
        prepend_bos: The rows begin with BOS.
        padding_side: "left" or "right"; None takes the tokenizer's.
    """
    if tokenizer.pad_token_id is None:
        return torch.ones_like(tokens)
    on_left = (padding_side or tokenizer.padding_side) == "left"
    is_text = attended(tokens != tokenizer.pad_token_id, from_left=on_left)
    if on_left and prepend_bos and tokenizer.bos_token_id == tokenizer.pad_token_id:
        is_text[:, :-1] |= is_text[:, 1:]
        is_text[:, -1] = True
    return is_text.to(tokens.dtype)


def get_tokens_with_bos_removed(
    tokenizer: Any, tokens: Int[Tensor, "batch pos"], padding_side: str | None = None
) -> Int[Tensor, "batch pos_minus_1"]:
    """Takes the BOS out of every row; rows padded on the left move one to the left behind their padding.

    Args:
        tokenizer: Says which tokens are BOS and padding.
        tokens: Rows that each have a BOS in front of their text.
        padding_side: "left" or "right"; None takes the tokenizer's.
    """
    if (padding_side or tokenizer.padding_side) == "right":
        return tokens[..., 1:]
    if tokenizer.bos_token_id == tokenizer.pad_token_id:
        leading = ~attended(tokens != tokenizer.pad_token_id, from_left=True)
        position = (leading.sum(-1) - 1).clamp(min=0)
    else:
        position = (tokens == tokenizer.bos_token_id).int().argmax(-1)
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
        encoded = tokenizer(examples[column_name], add_special_tokens=False)["input_ids"]
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
