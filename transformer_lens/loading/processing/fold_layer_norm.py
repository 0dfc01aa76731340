"""Folds the weight and bias of each norm into what reads it."""

from __future__ import annotations

from collections.abc import Collection

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.conversion.schema import READERS, grouped, norm_kind
from transformer_lens.loading.processing.linear_chain import Center, Computation, Scale, then, unrounded
from transformer_lens.loading.processing.shared_sums import SharedSums
from transformer_lens.loading.processing.sums import added
from transformer_lens.loading.weights import LazyTensor, Weights


def fold_layer_norm(
    weights: Weights,
    cfg: HookedTransformerConfig,
    fold_biases: bool = True,
    center_weights: bool = True,
    norms: Collection[str] = ("ln1", "ln2", "ln_final"),
) -> Weights:
    """Moves norms into the linear maps that read them.

    ``(x * w + b) W + c = x (diag(w) W) + (b W + c)``. A LayerNorm's output before its weight has mean zero, whether it
    has a bias or not, so the mean of the folded matrix over d_model is taken away too: ``W' = diag(w) W - mean``.
    Logits do not change. Norms of what a branch writes (sandwich norms) stay: ``r + w * N(f(r))`` has no reader alone.

    Args:
        weights: Left as they are.
        cfg: Of the model the weights belong to.
        fold_biases: Whether the norm's bias is folded.
        center_weights: Whether folded matrices behind a LayerNorm are centred.
        norms: Which norms.

    Returns:
        The weights without the norms' parameters.
    """
    changes: dict[str, LazyTensor] = {}
    gone: list[str] = []
    places = [(f"blocks.{layer}.", norm) for layer in range(cfg.n_layers) for norm in ("ln1", "ln2") if norm in norms]
    if "ln_final" in norms:
        places.append(("", "ln_final"))
    for prefix, norm in places:
        name = f"{prefix}{norm}"
        if f"{name}.w" not in weights:
            continue
        centres = center_weights and norm_kind(norm, cfg) == "LN"
        has_bias = f"{name}.b" in weights
        for matrix, bias in READERS[norm]:
            matrix = prefix + grouped(matrix, cfg)
            if matrix not in weights:
                continue
            folds_bias = fold_biases and has_bias and bias is not None
            sums = _shared_sums(weights, matrix, name) if folds_bias and centres else None
            folded = then(weights[matrix], Scale("d_model", weights[f"{name}.w"]), f"{norm} folded in")
            if centres:
                folded = then(folded, Center("d_model", sums), "centred over d_model")
            changes[matrix] = folded
            if fold_biases and has_bias and bias is not None:
                target, step = prefix + grouped(bias, cfg), f"bias of {norm} folded in"
                changes[target] = added(weights[target], weights[matrix], weights[f"{name}.b"], "d_model", step, sums)
        gone.append(f"{name}.w")
        if has_bias and fold_biases:
            gone.append(f"{name}.b")
    folded_weights = weights.updated(changes).without(gone)
    return fold_solu_norm(folded_weights, cfg, fold_biases, center_weights) if "ln2" in norms else folded_weights


def _shared_sums(weights: Weights, matrix: str, norm: str) -> SharedSums | None:
    """Returns the two sums over a matrix that is read as it is: what its mean is of, and what its bias takes in."""
    if isinstance(weights[matrix].make, Computation):
        return None
    return SharedSums(weights[matrix], "d_model", (weights[f"{norm}.w"], unrounded(weights[f"{norm}.b"])))


def fold_solu_norm(
    weights: Weights, cfg: HookedTransformerConfig, fold_biases: bool = True, center_weights: bool = True
) -> Weights:
    """Moves the norm inside SoLU MLPs into W_out: its only reader."""
    changes: dict[str, LazyTensor] = {}
    gone: list[str] = []
    for layer in range(cfg.n_layers):
        prefix = f"blocks.{layer}.mlp."
        if f"{prefix}ln.w" not in weights:
            continue
        matrix = weights[f"{prefix}W_out"]
        changes[f"{prefix}W_out"] = then(matrix, Scale("d_mlp", weights[f"{prefix}ln.w"]), "mlp.ln folded in")
        if center_weights:
            changes[f"{prefix}W_out"] = then(changes[f"{prefix}W_out"], Center("d_mlp"), "centred over d_mlp")
        if fold_biases and f"{prefix}ln.b" in weights:
            changes[f"{prefix}b_out"] = added(
                weights[f"{prefix}b_out"], matrix, weights[f"{prefix}ln.b"], "d_mlp", "bias of mlp.ln folded in"
            )
            gone.append(f"{prefix}ln.b")
        gone.append(f"{prefix}ln.w")
    return weights.updated(changes).without(gone)
