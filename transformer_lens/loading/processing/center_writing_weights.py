"""Takes the mean over d_model out of what writes to the residual stream."""

from __future__ import annotations

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.conversion.schema import WRITERS
from transformer_lens.loading.processing.linear_chain import Center, then
from transformer_lens.loading.weights import LazyTensor, Weights


def center_writing_weights(weights: Weights, cfg: HookedTransformerConfig) -> Weights:
    """Centres W_E, W_pos, W_O, b_O, W_out and b_out over d_model.

    Every reader of the residual stream takes the mean away first, so a constant in it is never seen. Logits do not
    change. Behind W_E of some models stands a norm: it takes the mean of W_E away too, but its own output, which it has
    multiplied by a weight for each coordinate, keeps a mean.

    Args:
        weights: Left as they are.
        cfg: Of the model the weights belong to.
    """
    changes: dict[str, LazyTensor] = {}
    for stem in WRITERS:
        names = [stem] if stem in weights else [f"blocks.{layer}.{stem}" for layer in range(cfg.n_layers)]
        for name in names:
            if name in weights:
                changes[name] = then(weights[name], Center("d_model"), "centred over d_model")
    return weights.updated(changes)
