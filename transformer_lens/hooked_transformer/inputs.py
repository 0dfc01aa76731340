"""From what a user passes to the residual stream before the first block."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Integer, Shaped
from torch import Tensor

from transformer_lens import anatomy
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.hooked_transformer.input_error import InputError
from transformer_lens.hooked_transformer.token_input import TextOrTokens, is_text, tokens_of
from transformer_lens.hooked_transformer.tokens import TokensMixin
from transformer_lens.utilities.tokenize_utils import mask_of, padding_of


class InputsMixin(TokensMixin):
    """Embeds text or tokens, at the right positions, and says which of them are padding."""

    def input_to_embed(
        self,
        input: TextOrTokens,
        prepend_bos: bool | None = None,
        padding_side: str | None = None,
        attention_mask: Shaped[Tensor, "*batch pos"] | np.ndarray | list[Any] | None = None,
        past_kv_cache: TransformerLensKeyValueCache | None = None,
    ) -> tuple[
        Float[Tensor, "batch pos d_model"],
        Integer[Tensor, "batch pos"] | None,
        Float[Tensor, "batch pos d_model"] | None,
        Int[Tensor, "batch offset_pos"] | None,
    ]:
        """Makes the residual stream that the first block reads.

        An attention mask is made only where it can matter: with a cache, with left padding, or when one is passed.
        Under right padding causal attention never looks from a token to padding, so there is none.

        Padding of texts is what they were padded by. Tokens do not say what of them is padding: it is found by the
        rule of `padding_of` (what a row has at the padded side beyond the shortest run of padding tokens; a row alone
        has none), and where that is not so, say it by `attention_mask`.

        Args:
            input: Text, texts, or tokens: a tensor, a numpy array or a list of integers, or rows of them; tokens
                without a batch axis get one of size 1.
            prepend_bos: Whether text gets a BOS token in front; None takes ``cfg.default_prepend_bos``.
            padding_side: "left" or "right"; None takes the tokenizer's.
            attention_mask: 1 for tokens and 0 for padding, of the shape of the tokens; None finds padding as said
                above.
            past_kv_cache: Keys and values of earlier positions; the mask is added to the mask it holds.

        Returns:
            The residual stream; the tokens; the positional embedding that "shortformer" models add to queries and
            keys; and the mask over cached and new positions, or None if nothing is masked.

        Raises:
            InputError: If `input` is neither text nor tokens of this model, text has no tokenizer, `attention_mask` is
                of another shape, or there are more tokens than the model has learned positions.
        """
        with self.overridden_defaults(prepend_bos, padding_side):
            tokens = self._batch_of_tokens(input)
            pos_offset = self.get_pos_offset(past_kv_cache, tokens.shape[0])
            mask = self._mask_of_input(input, tokens, attention_mask, past_kv_cache)
            if past_kv_cache is None:
                self._check_positions(pos_offset + tokens.shape[1], mask)
            elif mask is not None:
                past = past_kv_cache.previous_attention_mask.to(mask)
                self._check_positions(pos_offset + tokens.shape[1], torch.cat([past, mask], dim=1))
                mask = past_kv_cache.append_attention_mask(mask)
            if mask is not None and mask.all():
                mask = None
            if self.cfg.use_hook_tokens:
                tokens = self.hook_tokens(tokens)
            embed = self.hook_embed(self._embedded(tokens))
            residual, shortformer_pos_embed = self.get_residual(embed, pos_offset, attention_mask=mask, tokens=tokens)
        return residual, tokens, shortformer_pos_embed, mask

    def get_pos_offset(self, past_kv_cache: TransformerLensKeyValueCache | None, batch_size: int) -> int:
        """Counts the positions, padding included, that the cache already holds.

        Args:
            past_kv_cache: None holds none.
            batch_size: Rows of the new input, which must be as many as the cache has.

        Raises:
            InputError: If the cache was made for another batch or another model.
        """
        if past_kv_cache is None:
            return 0
        batch, length, heads, width = past_kv_cache[0].past_keys.shape
        attends = anatomy.layer_of(self.cfg, 0).attends
        n_kv_heads = attends.n_heads if self.cfg.ungroup_grouped_query_attention else attends.n_kv_heads
        if (batch, heads, width) != (batch_size, n_kv_heads, self.cfg.d_head):
            raise InputError(
                f"The cache holds {batch} rows of {heads} heads of {width}; "
                f"this input needs {batch_size} rows of {n_kv_heads} heads of {self.cfg.d_head}."
            )
        return length

    def get_residual(
        self,
        embed: Float[Tensor, "batch pos d_model"],
        pos_offset: int,
        prepend_bos: bool | None = None,
        attention_mask: Shaped[Tensor, "batch offset_pos"] | None = None,
        tokens: Int[Tensor, "batch pos"] | None = None,
        return_shortformer_pos_embed: bool = True,
        device: str | torch.device | None = None,
    ) -> Any:
        """Adds positions to token embeddings, as the model's kind of positional embedding wants.

        Args:
            embed: Token embeddings.
            pos_offset: Positions before the first of these, in tokens.
            prepend_bos: Taken for the sake of earlier releases' callers; positions do not depend on it.
            attention_mask: 1 for tokens and 0 for padding, over earlier and new positions; padding has no position.
            tokens: Their shape is all that is used; None stands for the shape of `embed`.
            return_shortformer_pos_embed: Whether the second result is returned.
            device: Where the stand-in for `tokens` is made; None takes that of `embed`.

        Returns:
            The residual stream ``[batch pos d_model]``; and, if asked for, the positional embedding that
            "shortformer" models add to queries and keys, or None.

        Raises:
            InputError: If the model has not learned so many positions.
            InvalidConfigError: If ``cfg.positional_embedding_type`` is unknown.
        """
        begins = anatomy.embedding_of(self.cfg)
        residual, shortformer_pos_embed = embed, None
        if begins.adds_positions or begins.adds_positions_to_queries:
            self._check_positions(pos_offset + embed.shape[1], attention_mask)
            if tokens is None:
                tokens = torch.ones(embed.shape[:2], dtype=torch.long, device=device or embed.device)
            pos_embed = self.hook_pos_embed(self.pos_embed(tokens, pos_offset, attention_mask))
            if begins.adds_positions:
                residual = embed + pos_embed
            else:
                shortformer_pos_embed = pos_embed
        return (residual, shortformer_pos_embed) if return_shortformer_pos_embed else residual

    def _batch_of_tokens(self, input: Any) -> Tensor:
        if is_text(input):
            if self.tokenizer is None:
                raise InputError("Text needs a tokenizer, and this model has none: pass tokens, or use set_tokenizer.")
            tokens = self.to_tokens(input)
        else:
            tokens = tokens_of(input)
        return tokens.to(self.device_of_block(0))

    def _embedded(self, tokens: Tensor) -> Tensor:
        try:
            return self.embed(tokens)  # type: ignore[no-any-return]
        except IndexError as error:
            low, high = (int(tokens.min()), int(tokens.max())) if tokens.numel() else (0, 0)
            if 0 <= low and high < self.cfg.d_vocab:
                raise
            raise InputError(
                f"The tokens go from {low} to {high}, and the model has {self.cfg.d_vocab}, from 0 on (cfg.d_vocab): "
                "do they come from the tokenizer of another model?"
            ) from error

    def _padding(self, input: Any, tokens: Tensor) -> Tensor:
        """Counts the padding of each row: of texts what they were padded by, of tokens by the rule of `padding_of`."""
        if isinstance(input, str):
            return torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)
        if is_text(input):
            lengths = [self.to_tokens(text, move_to_device=False).shape[1] for text in input]
            return tokens.shape[1] - torch.tensor(lengths, dtype=torch.long, device=tokens.device)
        if self.tokenizer is None:
            return padding_of(tokens, None, "right")
        return padding_of(tokens, self.tokenizer.pad_token_id, self.tokenizer.padding_side)

    def _mask_of_text(self, input: Any, tokens: Tensor) -> Tensor:
        """Marks tokens by 1 and padding by 0."""
        side = "right" if self.tokenizer is None else self.tokenizer.padding_side
        return mask_of(self._padding(input, tokens), tokens.shape[1], side)

    def _mask_of_input(
        self, input: Any, tokens: Tensor, given: Any, past_kv_cache: TransformerLensKeyValueCache | None
    ) -> Tensor | None:
        """Marks the new tokens by 1 and their padding by 0; None where that can make no difference."""
        if given is not None:
            return _checked_mask(given, tokens)
        pads_left = self.tokenizer is not None and self.tokenizer.padding_side == "left"
        if past_kv_cache is None:
            return self._mask_of_text(input, tokens) if pads_left else None
        past = past_kv_cache.previous_attention_mask.to(tokens.device)
        if not pads_left or past.shape[1] == 0 or is_text(input):
            return self._mask_of_text(input, tokens)
        assert self.tokenizer is not None
        # Padding on the left ends where the text begins: a row that has begun has no more.
        runs = padding_of(tokens, self.tokenizer.pad_token_id, "left", own_run=0)
        return mask_of(runs.masked_fill(past.bool().any(dim=1), 0), tokens.shape[1], "left")

    def _check_positions(self, length: int, mask: Tensor | None, advice: str = "") -> None:
        """Refuses more tokens than there are learned positions; padding has none.

        Raises:
            InputError: If there are more.
        """
        begins = anatomy.embedding_of(self.cfg)
        if length <= self.cfg.n_ctx or not (begins.adds_positions or begins.adds_positions_to_queries):
            return
        needed = length if mask is None else int(mask.sum(dim=1).max())
        if needed > self.cfg.n_ctx:
            raise InputError(
                f"The sequence has {needed} tokens, but the model has learned {self.cfg.n_ctx} positions (cfg.n_ctx): "
                f"pass fewer{advice or ', such as tokens[:, :model.cfg.n_ctx]; to_tokens cuts text to that by itself'}."
            )


def _checked_mask(given: Any, tokens: Tensor) -> Tensor:
    try:
        mask = torch.as_tensor(given)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"attention_mask holds 1 for tokens and 0 for padding, and this is no table: {error}."
        ) from None
    mask = (mask[None] if mask.ndim == 1 else mask).to(tokens.device)
    if mask.shape != tokens.shape:
        raise InputError(
            f"attention_mask is {tuple(mask.shape)}, the tokens are {tuple(tokens.shape)}. "
            "With a cache it covers the new tokens only."
        )
    if not ((mask == 0) | (mask == 1)).all():
        raise InputError("attention_mask holds 1 for tokens and 0 for padding, and this one holds other numbers.")
    return mask.long()
