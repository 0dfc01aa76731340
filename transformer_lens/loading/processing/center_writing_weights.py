"""Takes the mean over d_model out of what writes to the residual stream."""

from __future__ import annotations

from collections.abc import Collection

from transformer_lens import anatomy
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.processing.linear_chain import Center, then
from transformer_lens.loading.weights import Weights


def center_writing_weights(
    weights: Weights, cfg: HookedTransformerConfig, writers: Collection[str] | None = None
) -> Weights:
    """Centres W_E, W_pos, W_O, b_O, W_out and b_out over d_model.

    Every reader of the residual stream takes the mean away first, so a constant in it is never seen. Logits do not
    change. Behind W_E of some models stands a norm: it takes the mean of W_E away too, but its own output, which it has
    multiplied by a weight for each coordinate, keeps a mean.

    Args:
        weights: Left as they are.
        cfg: Of the model the weights belong to.
        writers: Which parameters, by their names; None means all that write to the residual stream.
    """
    names = anatomy.model_of(cfg).writers() if writers is None else writers
    step = "centred over d_model"
    return weights.updated({name: then(weights[name], Center("d_model"), step) for name in names if name in weights})
