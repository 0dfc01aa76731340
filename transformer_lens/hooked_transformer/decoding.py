"""What is continued, how the next token is chosen, and when a row is done."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transformer_lens.hooked_transformer.input_error import InputError
from transformer_lens.utilities.indices import as_index
from transformer_lens.utilities.logits_utils import sample_logits
from transformer_lens.utilities.tokenize_utils import mask_of, padding_of

__all__ = ["GenerateOutput", "Prompt", "Sampling", "Stopping", "padding_of", "stopping"]


class GenerateOutput(NamedTuple):
    """Sequences, and the logits that they were sampled from."""

    sequences: Int[Tensor, "batch pos"]
    logits: tuple[Float[Tensor, "batch d_vocab"], ...] | None = None


@dataclass(frozen=True)
class Prompt:
    """What is continued: tokens, or embeddings in their place.

    Attributes:
        tokens: ``[batch pos]``, as the caller will see them; ``[batch 0]`` where there are embeddings only.
        padding: How many positions of each row are padding.
        padding_side: On which side.
        embeds: ``[batch pos d_model]``, never padded; or None where there are tokens.
    """

    tokens: Int[Tensor, "batch pos"]
    padding: Int[Tensor, "batch"]
    padding_side: str = "left"
    embeds: Float[Tensor, "batch length d_model"] | None = None

    @property
    def length(self) -> int:
        """Returns the number of positions, padding included."""
        return self.tokens.shape[1] if self.embeds is None else self.embeds.shape[1]

    def tokens_at_end(self) -> Int[Tensor, "batch pos"]:
        """Returns the tokens with all padding on the left, so that every row ends where its continuation begins."""
        if self.padding_side == "left" or self.tokens.shape[1] == 0:
            return self.tokens
        places = torch.arange(self.tokens.shape[1], device=self.tokens.device) - self.padding[:, None]
        return self.tokens.gather(1, places % self.tokens.shape[1])

    def mask_at_end(self) -> Int[Tensor, "batch length"]:
        """Returns 0 for padding and 1 elsewhere, with all padding on the left."""
        return mask_of(self.padding, self.length, "left")

    def row(self, index: int) -> Int[Tensor, "pos"]:
        """Returns the tokens of a row without its padding."""
        padding, length = int(self.padding[index]), self.tokens.shape[1]
        return self.tokens[index, padding:] if self.padding_side == "left" else self.tokens[index, : length - padding]


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen out of the logits."""

    do_sample: bool
    top_k: int | None
    top_p: float | int | None
    temperature: float | int
    freq_penalty: float | int

    def choose(
        self,
        logits: Float[Tensor, "batch d_vocab"],
        tokens: Int[Tensor, "batch pos"],
        mask: Int[Tensor, "batch pos"],
    ) -> Int[Tensor, "batch"]:
        """Chooses a token a row: the likeliest, or one drawn.

        Drawing is from ``softmax(logits / temperature - freq_penalty * n)``, n the number of times that each token
        is among `tokens`, padding not counted; cut to the `top_k` likeliest and to probability `top_p`.
        """
        if not self.do_sample:
            return logits.argmax(-1)
        if self.freq_penalty != 0:
            logits = logits.float()
            counts = torch.zeros_like(logits).scatter_add_(1, tokens.to(logits.device).long(), mask.to(logits))
            logits = logits - self.temperature * self.freq_penalty * counts
        return sample_logits(logits, top_k=self.top_k, top_p=self.top_p, temperature=self.temperature)


@dataclass(frozen=True)
class Stopping:
    """Which tokens end a row, and the token that follows them until the other rows are done."""

    tokens: Int[Tensor, "n"] | None
    padding: int

    def ends(self, sampled: Int[Tensor, "batch"]) -> Bool[Tensor, "batch"]:
        """Says which rows end with this token."""
        if self.tokens is None:
            return torch.zeros_like(sampled, dtype=torch.bool)
        return torch.isin(sampled, self.tokens)


def stopping(
    stop_at_eos: bool,
    eos_token_id: SupportsIndex | Sequence[SupportsIndex] | None,
    tokenizer: Any,
    stop_tokens: tuple[int, ...],
    device: torch.device,
) -> Stopping:
    """Makes the rule that the arguments of ``generate`` ask for.

    Args:
        stop_at_eos: Whether rows end at all before their time.
        eos_token_id: The tokens that end them; None takes the tokenizer's EOS and `stop_tokens`.
        tokenizer: The model's, or None.
        stop_tokens: What the checkpoint's generation config ends a text with.
        device: Where tokens are sampled.

    Raises:
        InputError: If rows are to stop at EOS, and nothing says what it is.
    """
    if not stop_at_eos:
        return Stopping(None, 0)
    own = None if tokenizer is None else tokenizer.eos_token_id
    if eos_token_id is None:
        ends = [*([] if own is None else [own]), *stop_tokens]
    elif isinstance(eos_token_id, Sequence) or (isinstance(eos_token_id, (Tensor, np.ndarray)) and eos_token_id.ndim):
        ends = [as_index(token, "a token of eos_token_id") for token in eos_token_id]
    else:
        ends = [as_index(eos_token_id, "eos_token_id")]
        own = ends[0]
    if not ends:
        raise InputError("stop_at_eos needs an EOS token: pass eos_token_id, or stop_at_eos=False.")
    return Stopping(torch.tensor(list(dict.fromkeys(ends)), device=device), ends[0] if own is None else own)
