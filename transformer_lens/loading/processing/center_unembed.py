"""Takes the mean over the vocabulary out of the unembedding."""

from __future__ import annotations

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.processing.linear_chain import Center, then
from transformer_lens.loading.weights import Weights


def center_unembed(weights: Weights, cfg: HookedTransformerConfig) -> Weights:
    """Centres W_U and b_U over the vocabulary.

    ``softmax(z + c) = softmax(z)``: log-probs do not change; logits shift by their mean.

    Args:
        weights: Left as they are.
        cfg: Of the model the weights belong to.
    """
    step = "centred over the vocabulary"
    return weights.updated(
        {name: then(weights[name], Center("d_vocab_out"), step) for name in ("unembed.W_U", "unembed.b_U")}
    )
