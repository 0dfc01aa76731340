"""Rotates the factors of each head's circuits to their singular vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.conversion.schema import grouped
from transformer_lens.loading.processing.linear_chain import inner_dtype
from transformer_lens.loading.weights import Held, LazyTensor, Weights


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
            changes |= _jointly(weights, names, _rotated_query_key, "rotated to singular vectors of W_Q W_K^T")
        if value_output:
            names = [grouped(f"blocks.{layer}.attn.{leaf}", cfg) for leaf in ("W_V", "W_O")]
            changes |= _jointly(weights, names, _rotated_value_output, "rotated to singular vectors of W_V W_O")
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
    return q_left @ u, singular, q_right @ v.transpose(1, 2)


def _jointly(
    weights: Weights, names: list[str], function: Callable[..., tuple[Tensor, ...]], step: str
) -> dict[str, LazyTensor]:
    """Promises tensors that are computed together: whoever is asked first computes, each result is handed out once."""
    before = [weights[name] for name in names]
    ready: dict[int, Tensor] = {}

    def make(place: int) -> Tensor:
        if place not in ready:
            inner = torch.float64 if before[0].dtype == torch.float64 else inner_dtype(before[0].dtype)
            results = function(*(tensor.make().to(inner) for tensor in before))
            ready.update(enumerate(results))
        return ready.pop(place).to(before[place].dtype).clone(memory_format=torch.contiguous_format)

    return {
        name: replace(
            tensor,
            held=Held.FRESH,
            make=partial(make, place),
            origin=tensor.origin.then(step),
            sources=tuple(before),
        )
        for place, (name, tensor) in enumerate(zip(names, before))
    }
