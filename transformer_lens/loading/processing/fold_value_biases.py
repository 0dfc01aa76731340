"""Moves each head's value bias into its layer's output bias."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from transformer_lens import anatomy
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.memory.mappings import to_read
from transformer_lens.loading.processing.blocks import inner_dtype, largest_block
from transformer_lens.loading.processing.linear_chain import unrounded
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
    for layer in anatomy.layers(cfg):
        writer = layer.attends.writer().inside(layer.prefix)
        value, matrix, output = f"{layer.prefix}attn.{layer.attends.key_value('b_V')}", writer.matrix, writer.bias
        changes[output] = _output_bias(weights[output], weights[value], weights[matrix])
        changes[value] = _zeros(weights[value])
    return weights.updated(changes)


def _output_bias(bias: LazyTensor, value_bias: LazyTensor, matrix: LazyTensor) -> LazyTensor:
    base, values, output = unrounded(bias), unrounded(value_bias), unrounded(matrix)

    def total() -> Tensor:
        weight, each = to_read(output), to_read(values)
        inner = inner_dtype(weight.dtype, base.dtype)
        each = each.to(weight.device, inner).repeat_interleave(weight.shape[0] // each.shape[0], dim=0)
        out = to_read(base).to(weight.device, inner)
        if bool(each.any()):
            for head in range(weight.shape[0]):
                out = out + each[head] @ weight[head].to(inner)
        return out

    working = 2 * largest_block(output.shape, inner_dtype(output.dtype, base.dtype))
    return computed(bias, total, "value biases folded in", (base, values, output), working)


def _zeros(like: LazyTensor) -> LazyTensor:
    return replace(
        like,
        held=Held.FRESH,
        make=lambda: torch.zeros(like.shape, dtype=like.dtype, device=like.device),
        origin=like.origin.then("folded into b_O"),
        sources=(),
        whole=0,
        working=0,
        joint=None,
    )
