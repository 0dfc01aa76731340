"""Moves each head's value bias into its layer's output bias."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.conversion.schema import grouped
from transformer_lens.loading.processing.linear_chain import inner_dtype
from transformer_lens.loading.processing.sums import computed
from transformer_lens.loading.weights import Held, LazyTensor, Weights


def fold_value_biases(weights: Weights, cfg: HookedTransformerConfig) -> Weights:
    """Adds ``sum_head b_V[head] @ W_O[head]`` to ``b_O`` and makes ``b_V`` zero.

    Attention weights sum to one, so a value bias adds the same vector at every position. Grouped heads share theirs.
    Logits do not change.

    Args:
        weights: Left as they are.
        cfg: Of the model the weights belong to.
    """
    changes: dict[str, LazyTensor] = {}
    for layer in range(cfg.n_layers):
        prefix = f"blocks.{layer}."
        value, matrix, output = prefix + grouped("attn.b_V", cfg), f"{prefix}attn.W_O", f"{prefix}attn.b_O"
        changes[output] = _output_bias(weights[output], weights[value], weights[matrix])
        changes[value] = _zeros(weights[value])
    return weights.updated(changes)


def _output_bias(bias: LazyTensor, value_bias: LazyTensor, matrix: LazyTensor) -> LazyTensor:
    def make() -> Tensor:
        weight, base, values = matrix.make(), bias.make(), value_bias.make()
        inner = torch.float64 if weight.dtype == torch.float64 else inner_dtype(base.dtype)
        each = values.to(weight.device, inner).repeat_interleave(weight.shape[0] // values.shape[0], dim=0)
        total = base.to(weight.device, inner)
        if bool(each.any()):
            for head in range(weight.shape[0]):
                total = total + each[head] @ weight[head].to(inner)
        return total.to(base.device, base.dtype)

    return computed(bias, make, "value biases folded in", (bias, value_bias, matrix))


def _zeros(like: LazyTensor) -> LazyTensor:
    return replace(
        like,
        held=Held.FRESH,
        make=lambda: torch.zeros(like.shape, dtype=like.dtype, device=like.device),
        origin=like.origin.then("folded into b_O"),
        sources=(),
    )
