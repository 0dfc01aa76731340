"""From a router's logits and scores to the experts that are chosen, and their weights."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens.anatomy import Router


def in_best_groups(ranks: Float[Tensor, "*tokens expert"], router: Router) -> Float[Tensor, "*tokens expert"]:
    """Returns what experts are chosen by, minus infinity outside the groups that are chosen.

    A group's rank is the sum of those of its two best experts.
    """
    groups = ranks.unflatten(-1, (router.n_groups, -1))
    best = groups.topk(2, dim=-1).values.sum(-1).topk(router.n_groups_chosen, dim=-1).indices
    is_chosen = torch.zeros(groups.shape[:-1], dtype=torch.bool, device=ranks.device).scatter(-1, best, True)
    return groups.masked_fill(~is_chosen[..., None], -torch.inf).flatten(-2)


def sparsemixer(
    logits: Float[Tensor, "*tokens expert"], router: Router
) -> tuple[Float[Tensor, "*tokens expert"], Int[Tensor, "*tokens chosen"]]:
    """Returns the scores of a sparsemixer in evaluation, zero for experts that are not chosen, and the chosen.

    The next expert is the one with the largest logit m that is left. It has its share in the softmax over those left
    with ``(m - l) / max(|l|, m) <= 2 jitter``.
    """
    left, scores, chosen = logits, torch.zeros_like(logits), []
    for _ in range(router.n_chosen):
        most, best = left.max(dim=-1, keepdim=True)
        is_far = (most - logits) / torch.maximum(logits.abs(), most) > 2 * router.jitter
        shares = left.masked_fill(is_far, -torch.inf).softmax(-1)
        scores = scores.scatter(-1, best, shares.gather(-1, best))
        left = left.scatter(-1, best, -torch.inf)
        chosen.append(best)
    return scores, torch.cat(chosen, dim=-1)


def weigh(taken: Float[Tensor, "*tokens chosen"], router: Router) -> Float[Tensor, "*tokens chosen"]:
    """Returns the weights of experts whose scores are `taken`: divided by their sum, and multiplied, if they are."""
    if router.renormalizes:
        total = taken.sum(-1, keepdim=True)
        total = total + router.epsilon if router.epsilon else total
        taken = taken / (total.clamp(min=router.floor) if router.floor else total)
    return taken if router.multiplier == 1.0 else taken * router.multiplier
