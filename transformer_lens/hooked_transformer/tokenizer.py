"""What the model needs of a tokenizer beyond what its class offers."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from transformer_lens.hooked_transformer.input_error import InputError

_USUAL_END_OF_TEXT = "<|endoftext|>"


def check_padding_side(padding_side: str | None) -> None:
    """Refuses what is neither "left", "right" nor None.

    Raises:
        InputError: If it is something else.
    """
    if padding_side not in ("left", "right", None):
        raise InputError(f"The padding side is {padding_side!r}; it can be 'left', 'right' or None.")


def check_tokenizer(tokenizer: Any) -> None:
    """Refuses what cannot tokenize.

    Raises:
        InputError: It is a name or path, a ``tokenizers.Tokenizer``, or nothing that can be called with a text.
    """
    if isinstance(tokenizer, (str, Path)):
        raise InputError(
            f"A tokenizer is an object, and {str(tokenizer)!r} is a name: pass "
            f"transformers.AutoTokenizer.from_pretrained({str(tokenizer)!r})."
        )
    kind = type(tokenizer)
    if kind.__module__.partition(".")[0] == "tokenizers":
        raise InputError(
            f"A {kind.__module__}.{kind.__qualname__} has no special tokens and no padding side of its own: pass "
            "transformers.PreTrainedTokenizerFast(tokenizer_object=..., bos_token=..., eos_token=..., pad_token=...)."
        )
    if not callable(tokenizer):
        raise InputError(
            "A tokenizer of transformers, or what behaves like one, is called with texts, "
            f"and a {kind.__name__} cannot be."
        )


def name_of(tokenizer: Any) -> str | None:
    """Returns the name to load a tokenizer by, or None where it has none, as one that was made in memory."""
    try:
        name = tokenizer.name_or_path
    except AttributeError:
        return None
    return name if isinstance(name, str) and name else None


def prepends_bos(tokenizer: Any) -> bool:
    """Says whether the tokenizer itself puts its BOS (or CLS) token first.

    Both an empty and a short text are tried: one that only appends its EOS does not count, also if EOS and BOS are
    the same token.
    """
    firsts = {token for token in (tokenizer.bos_token_id, tokenizer.cls_token_id) if token is not None}
    return all(firsts.intersection(tokenizer.encode(text)[:1]) for text in ("", "a"))


def complete_special_tokens(tokenizer: Any) -> None:
    """Gives the tokenizer the special tokens that it lacks, out of those that it has.

    EOS becomes ``<|endoftext|>`` if that is in the vocabulary; BOS becomes EOS; padding becomes EOS, else BOS, else
    the unknown token. No token is added to the vocabulary.
    """
    if tokenizer.eos_token is None and _USUAL_END_OF_TEXT in tokenizer.get_vocab():
        tokenizer.eos_token = _USUAL_END_OF_TEXT
    if tokenizer.bos_token is None and tokenizer.eos_token is not None:
        tokenizer.bos_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        for token in (tokenizer.eos_token, tokenizer.bos_token, tokenizer.unk_token):
            if token is not None:
                tokenizer.pad_token = token
                break


def tokenize(
    tokenizer: Any,
    text: str | list[str],
    *,
    prepend_bos: bool,
    tokenizer_prepends_bos: bool,
    max_length: int | None,
) -> Int[Tensor, "batch pos"]:
    """Tokenizes one text or several, which are padded on the tokenizer's ``padding_side``.

    Args:
        tokenizer: Left as it is.
        text: One text or several.
        prepend_bos: Whether each row begins, after left padding, with exactly one BOS of ours or the tokenizer's.
        tokenizer_prepends_bos: Whether it puts one there itself.
        max_length: Most tokens of a row, BOS included; None is no limit.

    Returns:
        The tokens, on the CPU.

    Raises:
        InputError: If a BOS is wanted and there is none, or padding is needed and there is no token for it.
    """
    texts = [text] if isinstance(text, str) else list(text)
    bos: list[int] = []
    if prepend_bos and not tokenizer_prepends_bos:
        if tokenizer.bos_token_id is None:
            raise InputError(
                "prepend_bos is on, but the tokenizer has no BOS token: "
                "pass prepend_bos=False, set cfg.default_prepend_bos = False, or set the tokenizer's bos_token."
            )
        bos = [tokenizer.bos_token_id]
    superfluous = 1 if tokenizer_prepends_bos and not prepend_bos else 0
    limit = None if max_length is None else max_length - len(bos) + superfluous
    # Without truncation transformers would warn of a text longer than the tokenizer's maximum, which is what was asked.
    cut: dict[str, Any] = {"verbose": False} if limit is None else {"truncation": True, "max_length": limit}
    rows = tokenizer(texts, **cut)["input_ids"]
    return _padded(tokenizer, [bos + row[superfluous:] for row in rows])


def _padded(tokenizer: Any, rows: list[list[int]]) -> Tensor:
    length = max(map(len, rows), default=0)
    if any(len(row) != length for row in rows) and tokenizer.pad_token_id is None:
        raise InputError(
            "Texts of different lengths need padding, and the tokenizer has no token for it: set its pad_token, "
            "or give it to the model by set_tokenizer, which chooses one."
        )
    left = tokenizer.padding_side == "left"
    padded = []
    for row in rows:
        padding = [tokenizer.pad_token_id] * (length - len(row))
        padded.append(padding + row if left else row + padding)
    return torch.tensor(padded, dtype=torch.long).reshape(len(rows), length)
