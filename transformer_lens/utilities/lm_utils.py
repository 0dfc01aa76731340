"""How well a language model predicts the next token."""

from jaxtyping import Bool, Float, Int
from torch import Tensor


def lm_cross_entropy_loss(
    logits: Float[Tensor, "batch pos d_vocab"],
    tokens: Int[Tensor, "batch pos"],
    attention_mask: Int[Tensor, "batch pos"] | Bool[Tensor, "batch pos"] | None = None,
    per_token: bool = False,
) -> Float[Tensor, ""] | Float[Tensor, "batch pos_minus_1"]:
    """Computes the cross entropy of each next token, ``-log softmax(logits[pos])[tokens[pos + 1]]``, in nats.

    Args:
        logits: The predictions; those at the last position are not used.
        tokens: What was there.
        attention_mask: 0 where there is padding; predictions at or of padding do not count.
        per_token: Return each prediction's loss, 0 where it does not count, rather than their mean.
    """
    log_probs = logits[:, :-1].log_softmax(dim=-1)
    predicted = log_probs.gather(dim=-1, index=tokens[:, 1:, None].long())[..., 0]
    if attention_mask is None:
        return -predicted if per_token else -predicted.mean()
    counts = attention_mask[:, :-1].bool() & attention_mask[:, 1:].bool()
    predicted = predicted * counts
    return -predicted if per_token else -predicted.sum() / counts.sum()


def lm_accuracy(
    logits: Float[Tensor, "batch pos d_vocab"],
    tokens: Int[Tensor, "batch pos"],
    per_token: bool = False,
    attention_mask: Int[Tensor, "batch pos"] | Bool[Tensor, "batch pos"] | None = None,
) -> Float[Tensor, ""] | Bool[Tensor, "batch pos_minus_1"]:
    """Computes how often the most probable next token is the one that follows.

    Args:
        logits: The predictions; those at the last position are not used.
        tokens: What was there.
        per_token: Return whether each was right, rather than the share of those that were.
        attention_mask: 0 where there is padding; predictions at or of padding do not count, and are not right.
    """
    correct = logits[:, :-1].argmax(dim=-1) == tokens[:, 1:]
    if attention_mask is None:
        return correct if per_token else correct.float().mean()
    counts = attention_mask[:, :-1].bool() & attention_mask[:, 1:].bool()
    return correct & counts if per_token else (correct & counts).sum() / counts.sum()
