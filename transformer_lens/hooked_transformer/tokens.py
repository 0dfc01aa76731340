"""Between text and tokens."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from transformer_lens.components.matrix_owner import numbers_of
from transformer_lens.hooked_transformer.input_error import InputError
from transformer_lens.hooked_transformer.parts import ModelParts
from transformer_lens.hooked_transformer.rollback import rolled_back_on_error
from transformer_lens.hooked_transformer.token_input import TextOrTokens, is_text, tokens_of
from transformer_lens.hooked_transformer.tokenizer import (
    check_padding_side,
    check_tokenizer,
    complete_special_tokens,
    prepends_bos,
    tokenize,
)
from transformer_lens.utilities.defaults_utils import LocallyOverridenDefaults

_NUMBERS = (int, np.integer)


class TokensMixin(ModelParts):
    """Turns text into tokens and back, with the tokenizer that the model was given."""

    def set_tokenizer(self, tokenizer: Any, default_padding_side: str | None = "right") -> None:
        """Takes a tokenizer: the object itself, which is neither copied nor loaded again.

        Three things of it are set: ``padding_side``, and those of its EOS, BOS and padding tokens that it lacks
        (``complete_special_tokens``). In ``cfg``, ``tokenizer_prepends_bos`` and ``tokenizer_name`` are set, and
        ``d_vocab`` and ``d_vocab_out`` if they are -1.

        Args:
            tokenizer: A transformers tokenizer, or what behaves like one.
            default_padding_side: "left" or "right"; None leaves the tokenizer's own.

        Raises:
            InputError: If the side is neither, or `tokenizer` is a name or cannot tokenize. Model and
                tokenizer are as they were, whatever is raised.
        """
        check_padding_side(default_padding_side)
        check_tokenizer(tokenizer)
        with rolled_back_on_error(self, self.cfg, tokenizer):
            self.tokenizer = tokenizer
            if default_padding_side is not None:
                tokenizer.padding_side = default_padding_side
            complete_special_tokens(tokenizer)
            if self.cfg.d_vocab == -1:
                self.cfg.d_vocab = max(tokenizer.get_vocab().values()) + 1
            if self.cfg.d_vocab_out == -1:
                self.cfg.d_vocab_out = self.cfg.d_vocab

    def overridden_defaults(self, prepend_bos: bool | None, padding_side: str | None) -> "AbstractContextManager[Any]":
        """Sets ``cfg.default_prepend_bos`` and the tokenizer's padding side for a ``with`` block; None sets nothing."""
        if prepend_bos is None and padding_side is None:
            return nullcontext()
        check_padding_side(padding_side)
        return LocallyOverridenDefaults(self, prepend_bos=prepend_bos, padding_side=padding_side)

    def to_tokens(
        self,
        input: str | list[str] | tuple[str, ...],
        prepend_bos: bool | None = None,
        padding_side: str | None = None,
        move_to_device: bool = True,
        truncate: bool = True,
    ) -> Int[Tensor, "batch pos"]:
        """Turns text into tokens, at most one BOS in front of each.

        BOS is put in front of the tokens of the text, never into the text. A tokenizer that prepends one itself is
        left to do so, and it is taken off again if none is wanted.

        Args:
            input: One text, or several, which are padded to the longest.
            prepend_bos: Whether BOS comes first; None takes ``cfg.default_prepend_bos``.
            padding_side: "left" or "right"; None takes the tokenizer's.
            move_to_device: Whether the tokens are on the model's device, and not on the CPU.
            truncate: Whether texts longer than ``cfg.n_ctx`` tokens, BOS included, are cut to that.

        Returns:
            The tokens; of one text a batch of one.

        Raises:
            InputError: If the model has no tokenizer, or BOS is wanted and the tokenizer has none.
        """
        tokenizer = self._require_tokenizer()
        if not is_text(input):
            raise InputError(
                f"to_tokens takes a text or a list of texts, not a {type(input).__name__}; tokens go into the model as "
                "they are."
            )
        # Asked for each time: a tokenizer's settings, add_bos_token for one, can change under the model.
        self.cfg.tokenizer_prepends_bos = prepends_bos(tokenizer)
        with self.overridden_defaults(prepend_bos, padding_side):
            tokens = tokenize(
                tokenizer,
                input,
                prepend_bos=self.cfg.default_prepend_bos,
                tokenizer_prepends_bos=self.cfg.tokenizer_prepends_bos,
                max_length=self.cfg.n_ctx if truncate else None,
            )
        return tokens.to(self.device_of_block(0)) if move_to_device else tokens

    def to_string(self, tokens: Int[Tensor, "..."] | np.ndarray | list[Any] | int) -> str | list[str]:
        """Turns tokens into text: a row of them, or a single one, into one string, a batch into a list of strings.

        The text is that of the tokens and nothing else: BOS and padding are spelt out, and no spaces are tidied up.

        Raises:
            InputError: If the model has no tokenizer, or the tokens have more than two axes.
        """
        tokenizer = self._require_tokenizer()
        # Not every torch knows each of numpy's integers.
        tokens = torch.as_tensor(tokens.astype(np.int64) if isinstance(tokens, np.ndarray) else tokens)
        if tokens.ndim > 2:
            raise InputError(f"Tokens of shape {tuple(tokens.shape)} are neither a row nor a batch of rows.")
        if tokens.ndim == 2:
            return [tokenizer.decode(row, clean_up_tokenization_spaces=False) for row in tokens.tolist()]
        return tokenizer.decode(tokens.reshape(-1).tolist(), clean_up_tokenization_spaces=False)

    def to_str_tokens(
        self,
        input: str | Int[Tensor, "..."] | np.ndarray | list[Any],
        prepend_bos: bool | None = None,
        padding_side: str | None = None,
    ) -> list[str] | list[list[str]]:
        """Spells each token as the text that it stands for, on its own.

        Args:
            input: A text, or a row of tokens (of shape ``[pos]`` or ``[1 pos]``, or a list of integers); or a list of
                these.
            prepend_bos: Whether text gets a BOS token in front; None takes ``cfg.default_prepend_bos``.
            padding_side: "left" or "right"; None takes the tokenizer's.

        Returns:
            A string for each token; for a list, a list of these.

        Raises:
            InputError: If the model has no tokenizer, or tokens are no single row.
        """
        tokenizer = self._require_tokenizer()
        if isinstance(input, (list, tuple)) and not (input and all(isinstance(item, _NUMBERS) for item in input)):
            return [self.to_str_tokens(item, prepend_bos, padding_side) for item in input]  # type: ignore[misc]
        if isinstance(input, str):
            tokens = self.to_tokens(input, prepend_bos, padding_side, move_to_device=False)
        else:
            if isinstance(input, (Tensor, np.ndarray)):
                input = input.squeeze()
                input = input[None] if input.ndim == 0 else input
            tokens = tokens_of(input)
        if len(tokens) != 1:
            raise InputError(f"Tokens of shape {tuple(tokens.shape)} are no single row: pass a list of rows.")
        return [tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in tokens[0].tolist()]

    def to_single_token(self, string: str) -> int:
        """Returns the token of a string that is one token, without BOS.

        Raises:
            InputError: If the string is another number of tokens.
        """
        tokens = self.to_tokens(string, prepend_bos=False, move_to_device=False)[0].tolist()
        if len(tokens) != 1:
            raise InputError(f"{string!r} is not a single token, but {self.to_str_tokens(string, False)}.")
        return tokens[0]

    def to_single_str_token(self, int_token: int) -> str:
        """Returns the text that a single token stands for."""
        return str(self._require_tokenizer().decode([int(int_token)], clean_up_tokenization_spaces=False))

    def get_token_position(
        self,
        single_token: str | int | np.integer | Integer[Tensor, "..."],
        input: TextOrTokens,
        mode: Literal["first", "last"] = "first",
        prepend_bos: bool | None = None,
        padding_side: str | None = None,
    ) -> int:
        """Finds where a token occurs.

        Args:
            single_token: The token, or the string that is this one token.
            input: A text, or a row of tokens.
            mode: Whether the "first" or the "last" place is meant.
            prepend_bos: Whether text gets a BOS token in front, which counts as a position; None takes
                ``cfg.default_prepend_bos``.
            padding_side: "left" or "right"; None takes the tokenizer's.

        Returns:
            The index, in tokens.

        Raises:
            InputError: If it does not occur, or `mode` or `input` is none of the above.
        """
        if mode not in ("first", "last"):
            raise InputError(f"mode is {mode!r}; it can be 'first' or 'last'.")
        tokens = self.to_tokens(input, prepend_bos, padding_side) if is_text(input) else tokens_of(input)
        if tokens.shape[0] != 1:
            raise InputError(f"The place of a token is looked for in one row, not in {tokens.shape[0]}.")
        token = self.to_single_token(single_token) if isinstance(single_token, str) else int(single_token)
        places = (tokens.reshape(-1) == token).nonzero()
        if len(places) == 0:
            raise InputError(f"Token {single_token!r} does not occur in the input.")
        return int(places[0 if mode == "first" else -1])

    def tokens_to_residual_directions(
        self, tokens: str | int | np.integer | list[int] | np.ndarray | Integer[Tensor, "..."]
    ) -> Float[Tensor, "*tokens d_model"]:
        """Looks up the columns of ``W_U``: the directions along which the residual stream raises a token's logit.

        Without folding (``fold_ln``) of the last norm, that is the direction after the norm.

        Args:
            tokens: A token, the string that is one, or a tensor, an array or a list of tokens.

        Returns:
            The directions, of the shape of `tokens` with an axis d_model added; of a single token ``[d_model]``.
        """
        W_U = numbers_of(self.unembed, "W_U")
        if isinstance(tokens, (list, np.ndarray)):
            array = np.asarray(tokens)
            if array.dtype.kind not in "iu":
                raise InputError(f"Tokens are integers, and these are of {array.dtype}: pass one string at a time.")
            tokens = torch.from_numpy(array.astype(np.int64))
        if isinstance(tokens, Tensor):
            return W_U[:, tokens.item()] if tokens.numel() == 1 else W_U.T[tokens.to(W_U.device).long()]
        if isinstance(tokens, (str, *_NUMBERS)):
            return W_U[:, self.to_single_token(tokens) if isinstance(tokens, str) else int(tokens)]
        raise InputError(f"Tokens come as string, integer, tensor, array or list, not as {type(tokens).__name__}.")

    def _require_tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise InputError("This model has no tokenizer: give it one with set_tokenizer, or pass tokens.")
        return self.tokenizer
