"""Rotates the factors of each head's circuits to their singular vectors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.conversion.schema import grouped
from transformer_lens.loading.memory.fresh import give_back, order_of
from transformer_lens.loading.processing.blocks import inner_dtype
from transformer_lens.loading.processing.linear_chain import unrounded
from transformer_lens.loading.processing.sums import computed
from transformer_lens.loading.weights import Joint, LazyTensor, Weights, element_size


def refactor_attention(
    weights: Weights, cfg: HookedTransformerConfig, query_key: bool = True, value_output: bool = True
) -> Weights:
    """Replaces the factors of ``W_Q W_K^T`` and ``W_V W_O`` by orthogonal ones of the same product.

    ``W_V W_O = U S V^T`` gives ``W_V' = U S``, ``W_O' = V^T``. For queries and keys the biases ride along as one more
    row: ``[W_Q; b_Q] [W_K; b_K]^T = U S V^T`` gives ``U sqrt(S)`` and ``V sqrt(S)``. Logits do not change.

    Args:
        weights: Left as they are; value biases have been folded.
        cfg: Of the model the weights belong to.
        query_key: Whether queries and keys are rotated.
        value_output: Whether values and outputs are rotated.
    """
    changes: dict[str, LazyTensor] = {}
    for layer in range(cfg.n_layers):
        if query_key:
            names = [grouped(f"blocks.{layer}.attn.{leaf}", cfg) for leaf in ("W_Q", "b_Q", "W_K", "b_K")]
            # Queries and keys with their biases, the factors, what is made of them, and the last of these padded.
            step = "rotated to singular vectors of W_Q W_K^T"
            changes |= _jointly(weights, names, _rotated_query_key, step, halves=7)
        if value_output:
            names = [grouped(f"blocks.{layer}.attn.{leaf}", cfg) for leaf in ("W_V", "W_O")]
            step = "rotated to singular vectors of W_V W_O"
            changes |= _jointly(weights, names, _rotated_value_output, step, halves=5)
    return weights.updated(changes)


def _rotated_query_key(W_Q: Tensor, b_Q: Tensor, W_K: Tensor, b_K: Tensor) -> tuple[Tensor, ...]:
    queries = torch.cat([W_Q, b_Q[:, None, :]], dim=1)
    keys = torch.cat([W_K, b_K[:, None, :]], dim=1)
    left, singular, right = _product_svd(queries, keys.transpose(1, 2))
    root = singular.sqrt()[:, None, :]
    left, right = left * root, right * root
    return left[:, :-1], left[:, -1], right[:, :-1], right[:, -1]


def _rotated_value_output(W_V: Tensor, W_O: Tensor) -> tuple[Tensor, ...]:
    left, singular, right = _product_svd(W_V, W_O)
    return left * singular[:, None, :], right.transpose(1, 2)


def _product_svd(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns U, S and V of ``left @ right`` through its thin factors: no [d_model, d_model] matrix is made."""
    q_left, r_left = torch.linalg.qr(left)
    q_right, r_right = torch.linalg.qr(right.transpose(1, 2))
    u, singular, v = torch.linalg.svd(r_left @ r_right.transpose(1, 2))
    # Heads wider than d_model have directions that nothing reaches: their singular values are zero.
    beyond = (0, left.shape[2] - singular.shape[1])
    return F.pad(q_left @ u, beyond), F.pad(singular, beyond), F.pad(q_right @ v.transpose(1, 2), beyond)


def _jointly(
    weights: Weights, names: list[str], function: Callable[..., tuple[Tensor, ...]], step: str, halves: int
) -> dict[str, LazyTensor]:
    """Promises tensors that are computed together: whoever is asked first computes, each result is handed out once.

    Args:
        weights: By our names.
        names: Of the tensors.
        function: Computes all of them.
        step: What is done, for the report.
        halves: How many tensors of half their size together `function` holds at most.
    """
    before = tuple(unrounded(weights[name]) for name in names)
    inner = inner_dtype(*(tensor.dtype for tensor in before))
    ready: dict[int, Tensor] = {}
    # Two threads of a load may ask for two of them at once.
    asked = threading.Lock()

    def result(place: int) -> Tensor:
        with asked:
            if place not in ready:
                sources = [tensor.make() for tensor in before]
                device = sources[0].device
                results = function(*(source.to(device, inner) for source in sources))
                ready.update((other, _laid_out(one, sources[other])) for other, one in enumerate(results))
                del sources, results
                # The factors came from the allocator, which would keep them until the next layer.
                give_back()
            return ready.pop(place)

    sizes = tuple(tensor.numel * element_size(inner) for tensor in before)
    converted = sum(size for size, tensor in zip(sizes, before) if tensor.dtype != inner)
    joint = Joint(sizes, working=sum(sizes) * halves // 2 + converted)
    return {
        name: replace(computed(weights[name], partial(result, place), step, before), joint=(joint, place))
        for place, name in enumerate(names)
    }


def _laid_out(result: Tensor, source: Tensor) -> Tensor:
    """Returns the result with its axes in the order in which the source has them in memory."""
    order = order_of(source)
    stored = result.permute(order).contiguous()
    return stored.permute([order.index(axis) for axis in range(result.ndim)])
