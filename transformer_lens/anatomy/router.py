"""How a mixture sends tokens to its experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scores = Literal["softmax", "sigmoid", "sparsemixer"]


@dataclass(frozen=True)
class Router:
    """The `n_chosen` experts with the largest ``p + c`` get the weights ``multiplier * p``; p are scores of logits l.

    ``l = x W_gate^T + b``. If the router `renormalizes`, p is first divided by ``max(floor, epsilon + sum of p)`` over
    the chosen. Scores are one of
        "softmax": ``p = softmax(l)`` (Shazeer et al., 2017). A softmax over the chosen logits alone is the same as one
            over all, divided by the sum of the chosen.
        "sigmoid": ``p = sigmoid(l)`` (DeepSeek-AI, 2024).
        "sparsemixer": the experts are chosen one after the other (Liu et al., 2023). Each is the one with the largest
            logit m of those that are left, and its weight is its share in the softmax over those of them with
            ``(m - l) / max(|l|, m) <= 2 jitter``. Experts that are not chosen have p = 0.

    The correction c is used for choosing only: it balances the load without changing weights (Wang et al., 2024).
    Experts lie in `n_groups` groups of neighbours; those that can be chosen are of the `n_groups_chosen` groups whose
    two best experts have the largest sums of ``p + c`` (DeepSeek-AI, 2024).

    Attributes:
        n_chosen: Experts that each token is sent to.
        renormalizes: The weights of the chosen experts are divided by their sum.
        scores: How logits become scores.
        has_bias: The router has a bias b.
        bias_is_ours: No checkpoint has that b; it is zero until a norm is folded.
        has_correction: The router has a correction c.
        n_groups: Groups of experts.
        n_groups_chosen: Groups that a token's experts are of.
        multiplier: Of the weights.
        epsilon: Added to the sum that weights are divided by.
        floor: The least that weights are divided by.
        jitter: Half of the relative distance at which sparsemixer's experts no longer share.
        is_precise: Scores are computed of float32 numbers, and weights are not rounded to the model's dtype.
    """

    n_chosen: int
    renormalizes: bool
    scores: Scores = "softmax"
    has_bias: bool = False
    bias_is_ours: bool = False
    has_correction: bool = False
    n_groups: int = 1
    n_groups_chosen: int = 1
    multiplier: float = 1.0
    epsilon: float = 0.0
    floor: float = 0.0
    jitter: float = 0.0
    is_precise: bool = False

    def parameters(self) -> dict[str, str]:
        """Returns the axes of each parameter, by name inside the block."""
        out = {"mlp.W_gate.weight": "expert d_model"}
        if self.has_bias:
            out["mlp.W_gate.bias"] = "expert"
        if self.has_correction:
            out[CORRECTION] = "expert"
        return out


CORRECTION = "mlp.e_score_correction_bias"
"""Name of the correction inside a block. It is never rounded below float32: it decides between near-equal scores."""
