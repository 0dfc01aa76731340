"""From what a user passes to the residual stream before the first block."""

from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from transformer_lens import anatomy
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.hooked_transformer.input_error import InputError
from transformer_lens.hooked_transformer.tokens import TokensMixin
from transformer_lens.utilities.tokenize_utils import get_attention_mask


class InputsMixin(TokensMixin):
    """Embeds text or tokens, at the right positions, and says which of them are padding."""

    def input_to_embed(
        self,
        input: str | list[str] | Int[Tensor, "pos"] | Int[Tensor, "batch pos"],
        prepend_bos: bool | None = None,
        padding_side: str | None = None,
        attention_mask: Shaped[Tensor, "*batch pos"] | None = None,
        past_kv_cache: TransformerLensKeyValueCache | None = None,
    ) -> tuple[
        Float[Tensor, "batch pos d_model"],
        Int[Tensor, "batch pos"] | None,
        Float[Tensor, "batch pos d_model"] | None,
        Int[Tensor, "batch offset_pos"] | None,
    ]:
        """Makes the residual stream that the first block reads.

        An attention mask is made only where it can matter: with a cache, with left padding, or when one is passed.
        Under right padding causal attention never looks from a token to padding, so there is none.

        Args:
            input: Text, texts, or tokens; tokens without a batch axis get one of size 1.
            prepend_bos: Whether text gets a BOS token in front; None takes ``cfg.default_prepend_bos``.
            padding_side: "left" or "right"; None takes the tokenizer's.
            attention_mask: 1 for tokens and 0 for padding, of the shape of the tokens; None finds padding by its
                token, with the tokenizer's help.
            past_kv_cache: Keys and values of earlier positions; the mask is added to the mask it holds.

        Returns:
            The residual stream; the tokens; the positional embedding that "shortformer" models add to queries and
            keys; and the mask over cached and new positions, or None if nothing is masked.
        """
        with self.overridden_defaults(prepend_bos, padding_side):
            tokens = self._batch_of_tokens(input)
            pos_offset = self.get_pos_offset(past_kv_cache, tokens.shape[0])
            mask = self._mask_of_padding(tokens, attention_mask, past_kv_cache)
            if self.cfg.use_hook_tokens:
                tokens = self.hook_tokens(tokens)
            embed = self.hook_embed(self.embed(tokens))
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
            InvalidConfigError: If ``cfg.positional_embedding_type`` is unknown.
        """
        begins = anatomy.embedding_of(self.cfg)
        residual, shortformer_pos_embed = embed, None
        if begins.adds_positions or begins.adds_positions_to_queries:
            if tokens is None:
                tokens = torch.ones(embed.shape[:2], dtype=torch.long, device=device or embed.device)
            pos_embed = self.hook_pos_embed(self.pos_embed(tokens, pos_offset, attention_mask))
            if begins.adds_positions:
                residual = embed + pos_embed
            else:
                shortformer_pos_embed = pos_embed
        return (residual, shortformer_pos_embed) if return_shortformer_pos_embed else residual

    def _batch_of_tokens(self, input: Any) -> Tensor:
        if not isinstance(input, Tensor):
            if self.tokenizer is None:
                raise InputError("Text needs a tokenizer, and this model has none: pass tokens, or use set_tokenizer.")
            input = self.to_tokens(input)
        if input.ndim == 1:
            input = input[None]
        return input.to(self.device_of_block(0))

    def _mask_of_padding(
        self, tokens: Tensor, mask: Tensor | None, past_kv_cache: TransformerLensKeyValueCache | None
    ) -> Tensor | None:
        pads_left = self.tokenizer is not None and self.tokenizer.padding_side == "left"
        if mask is None:
            if not pads_left and past_kv_cache is None:
                return None
            if self.tokenizer is None:
                mask = torch.ones_like(tokens)
            else:
                mask = get_attention_mask(self.tokenizer, tokens, self.cfg.default_prepend_bos)
        mask = (mask[None] if mask.ndim == 1 else mask).to(tokens.device, torch.long)
        if mask.shape != tokens.shape:
            raise InputError(
                f"attention_mask is {tuple(mask.shape)}, the tokens are {tuple(tokens.shape)}. "
                "With a cache it covers the new tokens only."
            )
        if past_kv_cache is not None:
            mask = past_kv_cache.append_attention_mask(mask)
        return None if mask.all() else mask
