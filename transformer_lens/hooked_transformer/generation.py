"""Continues text, token by token."""

import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, SupportsIndex

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.hooked_transformer.decoding import (
    GenerateOutput,
    Prompt,
    Sampling,
    Stopping,
    padding_of,
    stopping,
)
from transformer_lens.hooked_transformer.forward import ForwardMixin
from transformer_lens.hooked_transformer.input_error import InputError
from transformer_lens.hooked_transformer.token_input import TextOrTokens, is_text
from transformer_lens.hooked_transformer.tokenizer import check_padding_side

_Input = TextOrTokens | Float[Tensor, "batch pos hidden_size"]
_RETURN_TYPES = ("input", "str", "tokens", "embeds")


class GenerationMixin(ForwardMixin):
    """Samples continuations."""

    @torch.no_grad()
    def generate(
        self,
        input: _Input = "",
        max_new_tokens: int = 10,
        stop_at_eos: bool = True,
        eos_token_id: SupportsIndex | Sequence[SupportsIndex] | None = None,
        do_sample: bool = True,
        top_k: int | None = None,
        top_p: float | int | None = None,
        temperature: float | int = 1.0,
        freq_penalty: float | int = 0.0,
        use_past_kv_cache: bool = True,
        prepend_bos: bool | None = None,
        padding_side: str | None = None,
        return_type: str | None = "input",
        verbose: bool = True,
        *,
        output_logits: bool = False,
        return_dict_in_generate: bool = False,
        **generation_kwargs: Any,
    ) -> Any:
        """Continues each row of the input until it ends or `max_new_tokens` are sampled.

        Padding is seen by no token and has no position: a row of a batch is continued (greedily; sampled, from the
        same distribution) as it would be alone, with or without the cache. A row that is done is filled up with EOS
        until all are.

        Args:
            input: A text, texts, tokens, or embeddings without positions ``[batch pos d_model]``.
            max_new_tokens: Most tokens to add to a row.
            stop_at_eos: Whether a row ends with an EOS token.
            eos_token_id: The tokens that end a row; None takes the tokenizer's EOS and ``model.stop_tokens``, those of
                the checkpoint's generation config.
            do_sample: Whether tokens are drawn, and not the likeliest taken.
            top_k: Draw from this many likeliest tokens only.
            top_p: Draw from the fewest likeliest tokens that have this probability together.
            temperature: Divides the logits before drawing; 0 takes the likeliest.
            freq_penalty: Taken off a token's logit, after temperature, for each time that it has occurred.
            use_past_kv_cache: Whether keys and values are kept; without, every step computes all positions.
            prepend_bos: Whether text gets a BOS token in front; None takes ``cfg.default_prepend_bos``.
            padding_side: "left" or "right": where texts are padded, and where padding of tokens is looked for. None
                pads texts on the left, and takes the tokenizer's side for tokens.
            return_type: "str", "tokens", "embeds", or "input" for what came in.
            verbose: Whether a progress bar is shown.
            output_logits: Whether a :class:`GenerateOutput` is returned, with the logits of every step.
            return_dict_in_generate: Whether a :class:`GenerateOutput` is returned, without them.
            **generation_kwargs: Other arguments of transformers' ``generate``: none has a meaning here, and a warning
                names those that are given.

        Returns:
            Input and continuation: a text (of several rows, a list of texts) without special tokens and padding;
            tokens ``[batch pos+new]``; or embeddings ``[batch pos+new d_model]``. Of embeddings that came in no text
            is known, so text and tokens are the new ones only.

        Raises:
            InputError: If something needs a tokenizer or EOS token that is not there, if `return_type` is unknown,
                or if the sequence outgrows learned positions.
        """
        if return_type not in _RETURN_TYPES:
            raise InputError(f"return_type is {return_type!r}; it can be {', '.join(map(repr, _RETURN_TYPES))}.")
        if generation_kwargs:
            warnings.warn(
                f"generate does without {', '.join(generation_kwargs)}: what it takes is in its signature.",
                UserWarning,
                stacklevel=2,
            )
        prompt, kind = self._prompt(input, prepend_bos, padding_side)
        if return_type == "input":
            return_type = kind
        sampling = Sampling(do_sample, top_k, top_p, temperature, freq_penalty)
        stop = stopping(stop_at_eos, eos_token_id, self.tokenizer, self.stop_tokens, prompt.tokens.device)
        steps = list(
            tqdm(
                self._steps(prompt, sampling, stop, max_new_tokens, use_past_kv_cache),
                total=max_new_tokens,
                disable=not verbose,
            )
        )
        sampled = [tokens for tokens, _, _ in steps]
        new = torch.stack(sampled, dim=1) if sampled else prompt.tokens[:, :0]
        if output_logits or return_dict_in_generate:
            logits = tuple(logits for _, logits, _ in steps) if output_logits else None
            return GenerateOutput(torch.cat([prompt.tokens, new], dim=1), logits)
        if return_type == "embeds":
            before = self.embed(prompt.tokens) if prompt.embeds is None else prompt.embeds
            return torch.cat([before, self.embed(new).to(before.device)], dim=1)
        if return_type == "tokens":
            return torch.cat([prompt.tokens, new], dim=1)
        return self._text(prompt, new, torch.stack([ended for _, _, ended in steps], dim=1) if steps else new.bool())

    @torch.no_grad()
    def generate_stream(
        self,
        input: TextOrTokens = "",
        max_new_tokens: int = 10,
        max_tokens_per_yield: int = 25,
        stop_at_eos: bool = True,
        eos_token_id: SupportsIndex | Sequence[SupportsIndex] | None = None,
        do_sample: bool = True,
        top_k: int | None = None,
        top_p: float | int | None = None,
        temperature: float | int = 1.0,
        freq_penalty: float | int = 0.0,
        use_past_kv_cache: bool = True,
        prepend_bos: bool | None = None,
        padding_side: str | None = None,
        return_type: str | None = "input",
        verbose: bool = True,
    ) -> Generator[Int[Tensor, "batch pos"] | str, None, None]:
        """Continues the input as :meth:`generate` does, and yields the parts as they come.

        The parts together are what :meth:`generate` returns for these arguments. The first holds the input, and
        counts it; each is yielded as soon as it has `max_tokens_per_yield` tokens, and the last with what is left.

        Args:
            input: A text, or tokens.
            max_new_tokens: Most tokens to add to a row.
            max_tokens_per_yield: Fewest tokens of a part but the last.
            stop_at_eos: Whether a row ends with an EOS token.
            eos_token_id: The tokens that end a row; None takes the tokenizer's EOS and ``model.stop_tokens``, those of
                the checkpoint's generation config.
            do_sample: Whether tokens are drawn, and not the likeliest taken.
            top_k: Draw from this many likeliest tokens only.
            top_p: Draw from the fewest likeliest tokens that have this probability together.
            temperature: Divides the logits before drawing; 0 takes the likeliest.
            freq_penalty: Taken off a token's logit, after temperature, for each time that it has occurred.
            use_past_kv_cache: Whether keys and values are kept.
            prepend_bos: Whether text gets a BOS token in front; None takes ``cfg.default_prepend_bos``.
            padding_side: Where padding of tokens is looked for; None takes the tokenizer's side.
            return_type: "str", of a single row; "tokens"; or "input" for what came in.
            verbose: Whether a progress bar is shown.

        Yields:
            Tokens ``[batch part]``, or text.

        Raises:
            InputError: As :meth:`generate`, and if text is asked for of several rows.
        """
        prompt, kind = self._prompt(input, prepend_bos, padding_side)
        return_type = kind if return_type == "input" else return_type
        if return_type not in ("str", "tokens"):
            raise InputError(f"return_type is {return_type!r}; a stream is of 'str' or 'tokens'.")
        if return_type == "str" and len(prompt.tokens) > 1:
            raise InputError("Text is streamed of a single row: pass return_type='tokens', or use generate.")
        sampling = Sampling(do_sample, top_k, top_p, temperature, freq_penalty)
        stop = stopping(stop_at_eos, eos_token_id, self.tokenizer, self.stop_tokens, prompt.tokens.device)
        steps = self._steps(prompt, sampling, stop, max_new_tokens, use_past_kv_cache)
        parts = _parts(prompt.tokens, tqdm(steps, total=max_new_tokens, disable=not verbose), max_tokens_per_yield)
        if return_type == "tokens":
            yield from parts
            return
        everything, told = prompt.tokens[:, :0], ""
        for part in parts:
            everything = torch.cat([everything, part], dim=1)
            text = self._decode(everything[0])
            # the bytes of one character can be spread over tokens; wait for the rest
            if text.startswith(told) and not text.endswith("\ufffd"):
                yield text[len(told) :]
                told = text
        if everything.shape[1] and len(text) > len(told):
            yield text[len(told) :]

    def _prompt(self, input: Any, prepend_bos: bool | None, padding_side: str | None) -> tuple[Prompt, str]:
        check_padding_side(padding_side)
        device = self.device_of_block(0)
        if isinstance(input, Tensor) and input.is_floating_point():
            nothing = torch.zeros(len(input), 0, dtype=torch.long, device=device)
            kind, prompt = "embeds", Prompt(nothing, padding_of(nothing, None, "left"), embeds=input.to(device))
        else:
            kind = "str" if is_text(input) else "tokens"
            own_side = "right" if self.tokenizer is None else str(self.tokenizer.padding_side)
            side = padding_side or ("left" if kind == "str" else own_side)
            with self.overridden_defaults(prepend_bos, side):
                tokens = self._batch_of_tokens(input)
                prompt = Prompt(tokens, self._padding(input, tokens), side)
        if prompt.length == 0 or len(prompt.tokens) == 0:
            raise InputError("There is nothing to continue: the input has no tokens.")
        return prompt, kind

    def _steps(
        self, prompt: Prompt, sampling: Sampling, stop: Stopping, max_new_tokens: int, use_past_kv_cache: bool
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yields each step's tokens ``[batch]``, their logits ``[batch d_vocab]``, and which rows had ended before."""
        batch, length = len(prompt.tokens), prompt.length
        offset = length - prompt.tokens.shape[1]
        tokens = prompt.tokens.new_zeros(batch, length - offset + max_new_tokens)
        tokens[:, : length - offset] = prompt.tokens_at_end()
        mask = tokens.new_ones(batch, length + max_new_tokens, dtype=torch.long)
        mask[:, :length] = prompt.mask_at_end()
        cache = None
        if use_past_kv_cache:
            cache = TransformerLensKeyValueCache.init_cache(self.cfg, self.cfg.device, batch)
        ended = torch.zeros(batch, dtype=torch.bool, device=tokens.device)
        with self._eval_mode():
            for end in range(length, length + max_new_tokens):
                self._check_positions(end, mask[:, :end], ", or a smaller max_new_tokens")
                known = tokens[:, : end - offset]
                if cache is not None and end > length:
                    logits = self(known[:, -1:], attention_mask=mask[:, end - 1 : end], past_kv_cache=cache)
                elif prompt.embeds is None:
                    logits = self(known, attention_mask=mask[:, :end], past_kv_cache=cache)
                else:
                    logits = self._logits_of_embeds(torch.cat([prompt.embeds, self.embed(known)], dim=1), cache)
                # of embeddings only the new tokens can be counted
                sampled = sampling.choose(logits[:, -1], known, mask[:, offset:end]).to(tokens.device)
                if stop.tokens is not None:
                    sampled = sampled.masked_fill(ended, stop.padding)
                tokens[:, end - offset] = sampled
                yield sampled, logits[:, -1], ended
                if stop.tokens is not None:
                    ended = ended | stop.ends(sampled)
                    if ended.all():
                        return

    def _logits_of_embeds(self, embeds: Tensor, cache: TransformerLensKeyValueCache | None) -> Tensor:
        if cache is not None:
            cache.append_attention_mask(torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device))
        residual, shortformer_pos_embed = self.get_residual(embeds, 0)
        return self(residual, start_at_layer=0, shortformer_pos_embed=shortformer_pos_embed, past_kv_cache=cache)

    @contextmanager
    def _eval_mode(self) -> Iterator[None]:
        training = [module for module in self.modules() if module.training]
        for module in training:
            module.training = False
        try:
            yield
        finally:
            for module in training:
                module.training = True

    def _text(self, prompt: Prompt, new: Tensor, ended: Tensor) -> str | list[str]:
        texts = [self._decode(torch.cat([prompt.row(index), new[index][~ended[index]]])) for index in range(len(new))]
        return texts[0] if len(texts) == 1 else texts

    def _decode(self, tokens: Tensor) -> str:
        return str(self._require_tokenizer().decode(tokens.tolist(), skip_special_tokens=True))


def _parts(prompt: Tensor, steps: Any, size: int) -> Iterator[Tensor]:
    part: list[Tensor] = [prompt]
    count = prompt.shape[1]
    for sampled, _, _ in steps:
        part.append(sampled[:, None])
        count += 1
        if count >= size:
            yield torch.cat(part, dim=1)
            part, count = [], 0
    if part:
        yield torch.cat(part, dim=1)
