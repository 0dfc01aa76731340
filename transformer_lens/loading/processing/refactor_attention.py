"""Rotates the factors of each head's circuits to their singular vectors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer_lens import anatomy
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.memory.fresh import empty_in_order, give_back, order_of
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
    for layer in anatomy.layers(cfg):
        prefix, key_value = f"{layer.prefix}attn.", layer.attends.key_value
        if query_key:
            names = [prefix + leaf for leaf in ("W_Q", "b_Q", key_value("W_K"), key_value("b_K"))]
            changes |= _jointly(weights, names, _rotated_query_key, "rotated to singular vectors of W_Q W_K^T")
        if value_output:
            names = [prefix + leaf for leaf in (key_value("W_V"), "W_O")]
            changes |= _jointly(weights, names, _rotated_value_output, "rotated to singular vectors of W_V W_O")
    return weights.updated(changes)


# What is rotated together, each in float32 or float64 when it is taken. The factors come from the C library's heap,
# which keeps what is let go unless it is told to give it back: hence after every large one.
Given = Iterator[Tensor]


def _rotated_query_key(given: Given) -> list[Tensor]:
    q_left, r_left = _factors(_with_bias(next(given), next(given)))
    q_right, r_right = _factors(_with_bias(next(given), next(given)))
    left, singular, right = _rotations(r_left, r_right)
    root = singular.sqrt()[:, None, :]
    q_left = q_left @ left.mul_(root)
    give_back()
    q_right = q_right @ right.mul_(root)
    return [q_left[:, :-1], q_left[:, -1], q_right[:, :-1], q_right[:, -1]]


def _rotated_value_output(given: Given) -> list[Tensor]:
    q_left, r_left = _factors(next(given))
    q_right, r_right = _factors(next(given).transpose(1, 2))
    left, singular, right = _rotations(r_left, r_right)
    q_left = q_left @ left.mul_(singular[:, None, :])
    give_back()
    q_right = q_right @ right
    return [q_left, q_right.transpose(1, 2)]


def _with_bias(weight: Tensor, bias: Tensor) -> Tensor:
    return torch.cat([weight, bias[:, None, :]], dim=1)


def _factors(tall: Tensor) -> tuple[Tensor, Tensor]:
    """Returns Q and R of tall matrices."""
    factors = torch.linalg.qr(tall)
    return factors[0], factors[1]


def _rotations(r_left: Tensor, r_right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns what makes U, S and V of ``left @ right^T`` of the thin factors: no [d_model, d_model] matrix is made."""
    give_back()
    u, singular, v = torch.linalg.svd(r_left @ r_right.transpose(1, 2))
    # Heads wider than d_model have directions that nothing reaches: their singular values are zero.
    beyond = (0, r_left.shape[2] - singular.shape[1])
    return F.pad(u, beyond), F.pad(singular, beyond), F.pad(v.transpose(1, 2), beyond)


def _jointly(
    weights: Weights, names: list[str], function: Callable[[Given], list[Tensor]], step: str
) -> dict[str, LazyTensor]:
    """Promises tensors that are computed together: whoever is asked first computes, each result is handed out once."""
    before = tuple(unrounded(weights[name]) for name in names)
    inner = inner_dtype(*(tensor.dtype for tensor in before))
    ready: dict[int, Tensor] = {}
    # Two threads of a load may ask for two of them at once.
    asked = threading.Lock()

    def result(place: int) -> Tensor:
        with asked:
            if place not in ready:
                sources = [tensor.make() for tensor in before]
                orders, device = [order_of(source) for source in sources], sources[0].device
                results = function(_given_away(sources, device, inner))
                while results:
                    _keep_last(results, ready, orders[len(results) - 1])
            return ready.pop(place)

    sizes = tuple(tensor.numel * element_size(inner) for tensor in before)
    heads, *_, d_head = before[0].shape
    # A matrix with its bias, and its factor; at the end both rotated factors, and one of them before it was. What the
    # singular vectors of the small product take is there all the time.
    small = 6 * heads * d_head**2 * element_size(inner)
    working = (2 if len(names) > 2 else 1) * max(sizes)
    joint = Joint(sizes, working + small, least=sum(sizes) + max(sizes) + small)
    return {
        name: replace(computed(weights[name], partial(result, place), step, before), joint=(joint, place))
        for place, name in enumerate(names)
    }


def _given_away(tensors: list[Tensor], device: torch.device, inner: torch.dtype) -> Given:
    """Yields tensors in order and empties the list: what nobody else holds is gone when the taker lets it go."""
    while tensors:
        give_back()
        yield tensors.pop(0).to(device, inner)


def _keep_last(results: list[Tensor], ready: dict[int, Tensor], order: Sequence[int]) -> None:
    """Moves the last result into memory that goes back to the system when it is let go, its axes in the given order."""
    give_back()
    place, result = len(results) - 1, results.pop()
    ready[place] = empty_in_order(result.shape, order, result.dtype, result.device).copy_(result)
    del result
    give_back()
