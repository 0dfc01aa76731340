"""Next tokens from logits."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


def sample_logits(
    final_logits: Float[Tensor, "batch d_vocab"],
    top_k: int | None = None,
    top_p: float | int | None = None,
    temperature: float | int = 1.0,
    freq_penalty: float | int = 0.0,
    repetition_penalty: float | int = 1.0,
    tokens: Int[Tensor, "batch pos"] | None = None,
) -> Int[Tensor, "batch"]:
    """Draws the next token of each row.

    Args:
        final_logits: Logits at the last position.
        top_k: Draw among this many of the most probable.
        top_p: Draw among the most probable that together reach this probability; not used with `top_k`.
        temperature: Divides the logits; 0 takes the most probable.
        freq_penalty: Taken off a logit for each time the token is in `tokens`; not used at temperature 0.
        repetition_penalty: A logit of a token in `tokens` is divided by this if positive, else multiplied
            (Keskar et al. 2019, CTRL); 1 is off.
        tokens: The tokens so far, for the penalties.

    Raises:
        AssertionError: A number is out of range, or `tokens` is missing.
    """
    logits = final_logits
    if repetition_penalty != 1.0:
        assert repetition_penalty > 0, "repetition_penalty must be above 0"
        assert tokens is not None, "tokens must be given for a repetition penalty"
        seen = logits.gather(1, tokens.long())
        seen = torch.where(seen < 0, seen * repetition_penalty, seen / repetition_penalty)
        logits = logits.scatter(1, tokens.long(), seen)
    if temperature == 0.0:
        return logits.argmax(dim=-1)
    logits = logits / temperature
    if freq_penalty > 0:
        assert tokens is not None, "tokens must be given for a frequency penalty"
        counts = torch.zeros_like(logits).scatter_add(1, tokens.long(), torch.ones_like(tokens, dtype=logits.dtype))
        logits = logits - freq_penalty * counts
    if top_k is not None:
        assert top_k > 0, "top_k must be above 0"
        least = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    elif top_p is not None:
        assert 0.0 < top_p <= 1.0, "top_p must be in (0, 1]"
        ordered, order = logits.sort(dim=-1, descending=True)
        probs = ordered.softmax(dim=-1)
        beyond = probs.cumsum(dim=-1) - probs > top_p
        logits = logits.masked_fill(beyond.scatter(1, order, beyond), -torch.inf)
    return torch.multinomial(logits.float().softmax(dim=-1), num_samples=1)[:, 0]


def logits_to_df(logits: Float[Tensor, "d_vocab"], tokenizer: Any | None = None, top_k: int | None = None) -> Any:
    """Lists tokens from the most probable on, in a pandas ``DataFrame``.

    Args:
        logits: Logits at one position.
        tokenizer: Decodes the tokens; without it, no column of strings.
        top_k: How many tokens; None means all.

    Returns:
        Columns ``token_id``, ``token_string`` (with a tokenizer), ``logit``, ``log_prob`` (nats) and ``prob``.
    """
    import pandas as pd

    values = logits.detach().float().cpu()
    log_probs = values.log_softmax(dim=-1)
    order = values.argsort(descending=True)[:top_k]
    columns = {"token_id": order.tolist()}
    if tokenizer is not None:
        columns["token_string"] = [tokenizer.decode([token]) for token in order.tolist()]
    columns["logit"] = values[order].tolist()
    columns["log_prob"] = log_probs[order].tolist()
    columns["prob"] = log_probs[order].exp().tolist()
    return pd.DataFrame(columns)
