"""Folds the weight and bias of each norm into what reads it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from transformer_lens import anatomy
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.computation import Computation
from transformer_lens.loading.memory.mappings import to_read
from transformer_lens.loading.processing.blocks import inner_dtype
from transformer_lens.loading.processing.linear_chain import Center, Scale, then, unrounded
from transformer_lens.loading.processing.shared_sums import SharedSums
from transformer_lens.loading.processing.sums import added, computed
from transformer_lens.loading.weights import LazyTensor, Weights


def fold_layer_norm(
    weights: Weights,
    cfg: HookedTransformerConfig,
    fold_biases: bool = True,
    center_weights: bool = True,
    norms: Collection[str] | None = None,
) -> Weights:
    """Moves norms into the linear maps that read them.

    ``(x * w + b) W + c = x (diag(w) W) + (b W + c)``. A LayerNorm's output before its weight has mean zero, whether it
    has a bias or not, so the mean of the folded matrix over the norm's axis is taken away too:
    ``W' = diag(w) W - mean``. Logits do not change. Norms of what a branch writes stay: ``r + w * N(f(r))`` has no
    reader alone.

    Args:
        weights: Left as they are.
        cfg: Of the model the weights belong to.
        fold_biases: Whether the norm's bias is folded.
        center_weights: Whether folded matrices behind a LayerNorm are centred.
        norms: Which norms, by their names in the model; None means all that only matrices read.

    Returns:
        The weights without the norms' parameters.

    Raises:
        ValueError: A norm's bias has no bias to be folded into behind a matrix that reads it.
    """
    changes: dict[str, LazyTensor] = {}
    gone: list[str] = []
    for name, norm, readers in anatomy.model_of(cfg).readers():
        if f"{name}.w" not in weights or not (norms is None or name in norms):
            continue
        stem = norm.name
        centres, has_bias = center_weights and norm.centers, f"{name}.b" in weights
        unbiased = [reader.matrix for reader in readers if reader.bias is None]
        if fold_biases and has_bias and unbiased:
            raise ValueError(f"{name} has a bias, and behind {unbiased[0]} there is none to fold it into.")
        for reader in readers:
            matrix = changes.get(reader.matrix, weights[reader.matrix])
            folds_bias = fold_biases and has_bias and reader.bias is not None
            scale = _scale(weights[f"{name}.w"], norm)
            shares = folds_bias and centres and reader.axis == "d_model"
            sums = _shared_sums(weights, reader.matrix, name, scale) if shares else None
            folded = then(matrix, Scale(reader.axis, scale), f"{stem} folded in")
            if centres:
                folded = then(folded, Center(reader.axis, sums), f"centred over {reader.axis}")
            changes[reader.matrix] = folded
            if folds_bias and reader.bias is not None:
                step = f"bias of {stem} folded in"
                base = changes.get(reader.bias, weights[reader.bias])
                changes[reader.bias] = added(
                    base, weights[reader.matrix], weights[f"{name}.b"], reader.axis, step, sums
                )
        gone.append(f"{name}.w")
        if has_bias and fold_biases:
            gone.append(f"{name}.b")
    return weights.updated(changes).without(gone)


def _scale(weight: LazyTensor, norm: anatomy.Norm) -> LazyTensor:
    """Returns what a norm multiplies by: its weight, or the weight and its offset, not rounded to a short dtype."""
    if norm.offset == 0.0:
        return weight
    inner = inner_dtype(weight.dtype)
    shifted = lambda: to_read(weight).to(inner) + norm.offset
    return computed(replace(weight, dtype=inner), shifted, f"{norm.offset:g} added", (weight,))


def _shared_sums(weights: Weights, matrix: str, norm: str, scale: LazyTensor) -> SharedSums | None:
    """Returns the two sums over a matrix that is read as it is: what its mean is of, and what its bias takes in."""
    if isinstance(weights[matrix].make, Computation):
        return None
    return SharedSums(weights[matrix], "d_model", (scale, unrounded(weights[f"{norm}.b"])))
