"""The forward pass, and the pass that also returns what happened inside."""

from typing import Any, SupportsIndex

import numpy as np
import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor

from transformer_lens import anatomy
from transformer_lens.ActivationCache import ActivationCache
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.hooked_transformer.input_error import InputError
from transformer_lens.hooked_transformer.inputs import InputsMixin
from transformer_lens.hooked_transformer.output import Output
from transformer_lens.hooked_transformer.token_input import TextOrTokens, tokens_of
from transformer_lens.utilities.activation_functions import apply_softcap
from transformer_lens.utilities.indices import as_index
from transformer_lens.utilities.lm_utils import lm_cross_entropy_loss

_RETURN_TYPES = ("logits", "loss", "both", None)


class ForwardMixin(InputsMixin):
    """Runs the model, in whole or from one layer to another."""

    def forward(
        self,
        input: TextOrTokens | Float[Tensor, "batch pos d_model"],
        return_type: str | None = "logits",
        loss_per_token: bool = False,
        prepend_bos: bool | None = None,
        padding_side: str | None = None,
        start_at_layer: SupportsIndex | None = None,
        tokens: TextOrTokens | None = None,
        shortformer_pos_embed: Float[Tensor, "batch pos d_model"] | None = None,
        attention_mask: Shaped[Tensor, "*batch offset_pos"] | np.ndarray | list[Any] | None = None,
        stop_at_layer: SupportsIndex | None = None,
        past_kv_cache: TransformerLensKeyValueCache | None = None,
    ) -> None | Float[Tensor, "batch pos width"] | Float[Tensor, ""] | Float[Tensor, "batch predicted"] | Output:
        """Maps tokens to logits, loss, or the residual stream at some layer.

        With r the residual stream after the last block, the logits are ``unembed(ln_final(r))``, times
        ``cfg.logit_multiplier``, soft-capped to ``c * tanh(logits / c)`` where ``c = cfg.output_logits_soft_cap`` is
        above zero.

        Running ``[:k]`` and then ``[k:]`` is running the whole: ``model(model(x, stop_at_layer=k), start_at_layer=k)``
        has the logits of ``model(x)`` (with `attention_mask` and `shortformer_pos_embed` passed on, where used).

        Args:
            input: Text, texts, tokens (without a batch axis they get one of size 1); or, with `start_at_layer`, the
                residual stream.
            return_type: "logits"; "loss"; "both" for an :class:`Output`; or None, to run for the hooks alone.
            loss_per_token: Whether the loss is that of each predicted token, ``[batch pos-1]``, and not their mean.
            prepend_bos: Whether text gets a BOS token in front; None takes ``cfg.default_prepend_bos``.
            padding_side: "left" or "right", for text, and to find padding in tokens; None takes the tokenizer's.
            start_at_layer: Index of the first block to run; `input` is then its residual stream. Negative ones count
                from the end.
            tokens: With `start_at_layer`, the tokens that a loss is of.
            shortformer_pos_embed: With `start_at_layer`, what "shortformer" models add to queries and keys.
            attention_mask: 1 for tokens and 0 for padding. Over the new tokens; with `start_at_layer` it goes to the
                blocks as it is, over cached and new ones.
            stop_at_layer: Index of the first block not to run; the residual stream before it is returned, and
                `return_type` means nothing. Negative ones count from the end.
            past_kv_cache: Keys and values of earlier tokens. Those of the new ones are added to it, unless it is
                frozen.

        Returns:
            Logits ``[batch pos d_vocab_out]``, a loss in nats, both, None, or a residual stream
            ``[batch pos d_model]``.

        Raises:
            InputError: If `return_type` is unknown, if a loss is asked for without tokens, or if `input` is none of
                the above.
        """
        if return_type not in _RETURN_TYPES:
            raise InputError(f"return_type is {return_type!r}; it can be 'logits', 'loss', 'both' or None.")
        start_at_layer = None if start_at_layer is None else as_index(start_at_layer, "start_at_layer")
        stop_at_layer = None if stop_at_layer is None else as_index(stop_at_layer, "stop_at_layer")
        with self.overridden_defaults(prepend_bos, padding_side):
            text, is_masked = input, attention_mask is not None or past_kv_cache is not None
            if start_at_layer is None:
                residual, tokens, shortformer_pos_embed, attention_mask = self.input_to_embed(
                    input,
                    prepend_bos=prepend_bos,
                    padding_side=padding_side,
                    attention_mask=attention_mask,
                    past_kv_cache=past_kv_cache,
                )
            elif isinstance(input, Tensor) and input.is_floating_point():
                residual = input
                if tokens is not None:
                    tokens = text = tokens_of(tokens)
                    if not is_masked:
                        attention_mask = self._mask_of_input(text, tokens.to(residual.device), None, None)
            else:
                raise InputError("With start_at_layer, input is the residual stream [batch pos d_model].")
            blocks = list(zip(range(self.cfg.n_layers), self.blocks, strict=False))
            for index, block in blocks[start_at_layer:stop_at_layer]:
                if self.cfg.n_devices > 1:
                    device = self.device_of_block(index)
                    residual = residual.to(device)
                    if shortformer_pos_embed is not None:
                        shortformer_pos_embed = shortformer_pos_embed.to(device)
                residual = block(
                    residual,
                    past_kv_cache_entry=None if past_kv_cache is None else past_kv_cache[index],
                    shortformer_pos_embed=shortformer_pos_embed,
                    attention_mask=attention_mask,
                )
            if stop_at_layer is not None:
                return residual
            if anatomy.final_norm_of(self.cfg) is not None:
                residual = self.ln_final(residual)
            if return_type is None:
                return None
            unembedding = anatomy.unembedding_of(self.cfg)
            logits = self.unembed(residual)
            if unembedding.multiplier != 1.0:
                logits = logits * unembedding.multiplier
            logits = apply_softcap(logits, unembedding.softcap)
            if return_type == "logits":
                return logits
            if tokens is None:
                raise InputError("A loss with start_at_layer needs the tokens that it is of: pass tokens=.")
            if attention_mask is None:
                attention_mask = torch.ones_like(tokens) if is_masked else self._mask_of_text(text, tokens)
            loss = self.loss_fn(logits, tokens, attention_mask, per_token=loss_per_token)
            return loss if return_type == "loss" else Output(logits, loss)

    def loss_fn(
        self,
        logits: Float[Tensor, "batch pos d_vocab"],
        tokens: Integer[Tensor, "pos"] | Integer[Tensor, "batch pos"],
        attention_mask: Shaped[Tensor, "*batch offset_pos"] | None = None,
        per_token: bool = False,
    ) -> Float[Tensor, ""] | Float[Tensor, "batch predicted"]:
        """Computes the cross entropy of each token given those before it.

        Args:
            logits: Predictions.
            tokens: What was to be predicted; the first of each row is predicted by nothing.
            attention_mask: 1 for tokens and 0 for padding, which counts for nothing. Of a mask that also covers cached
                positions the end is used. None finds padding as :meth:`input_to_embed` does for tokens.
            per_token: Whether each token's loss is returned, 0 where masked, and not the mean over unmasked ones.

        Returns:
            The loss in nats.
        """
        if tokens.ndim == 1:
            tokens = tokens[None]
        tokens = tokens.to(logits.device)
        if attention_mask is None:
            attention_mask = self._mask_of_text(tokens, tokens)
        if attention_mask.ndim == 1:
            attention_mask = attention_mask[None]
        attention_mask = attention_mask[:, -tokens.shape[1] :].to(logits.device)
        return lm_cross_entropy_loss(logits, tokens, None if attention_mask.all() else attention_mask, per_token)

    def run_with_cache(  # type: ignore[override]
        self, *model_args: Any, return_cache_object: bool = True, remove_batch_dim: bool = False, **kwargs: Any
    ) -> tuple[Any, ActivationCache | dict[str, Tensor]]:
        """Runs the model and keeps its activations.

        Args:
            *model_args: Arguments of :meth:`forward`.
            return_cache_object: Whether they come as an :class:`ActivationCache`, and not as a plain dict.
            remove_batch_dim: Whether the batch axis, of size 1, is taken off every activation.
            **kwargs: Keyword arguments of :meth:`forward` and of ``HookedRootModule.run_with_cache``, such as
                ``names_filter``, ``device``, ``incl_bwd``, ``reset_hooks_end``, ``clear_contexts`` and ``pos_slice``.

        Returns:
            What :meth:`forward` returns, and the activations by hook name.
        """
        output, activations = super().run_with_cache(*model_args, remove_batch_dim=remove_batch_dim, **kwargs)
        if return_cache_object:
            return output, ActivationCache(activations, self, has_batch_dim=not remove_batch_dim)
        return output, activations
