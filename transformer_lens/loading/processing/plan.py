"""What is legal: the only place that decides which steps of processing are done, and says why not."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.processing.center_unembed import center_unembed
from transformer_lens.loading.processing.center_writing_weights import center_writing_weights
from transformer_lens.loading.processing.flags import Flags
from transformer_lens.loading.processing.fold_layer_norm import fold_layer_norm
from transformer_lens.loading.processing.fold_value_biases import fold_value_biases
from transformer_lens.loading.processing.refactor_attention import refactor_attention
from transformer_lens.loading.weights import Weights


@dataclass(frozen=True)
class Plan:
    """The steps that will be done, in order, and those that will not, each with its reason.

    Attributes:
        steps: Names of steps.
        skipped: (step, reason) of every step that was asked for and is left out.
        norms: The norms that are folded.
    """

    steps: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    norms: tuple[str, ...] = ()


def plan(flags: Flags, cfg: HookedTransformerConfig, names: Collection[str] = ()) -> Plan:
    """Decides what is done.

    The mathematics behind each reason is in ``docs/processing.md``.

    Args:
        flags: What is asked for.
        cfg: The model's traits.
        names: Of the weights that are there; a model whose norms are folded already has none to fold.
    """
    steps: list[str] = []
    skipped: list[tuple[str, str]] = []
    norms: tuple[str, ...] = ()

    def decide(step: str, asked: bool, reason: str | None) -> None:
        if asked and reason is None:
            steps.append(step)
        elif asked and reason is not None:
            skipped.append((step, reason))

    if flags.fold_ln:
        norms, reasons = _foldable_norms(cfg, names)
        if norms:
            steps.append("fold_ln")
        skipped.extend(("fold_ln", reason) for reason in reasons)
    decide("fold_value_biases", flags.fold_value_biases, None)
    decide("center_writing_weights", flags.center_writing_weights, _why_not_center_writers(cfg))
    decide("center_unembed", flags.center_unembed, _why_not_center_unembed(cfg))
    if flags.refactor_factored_attn_matrices:
        decide("refactor_query_key", True, _why_not_refactor_query_key(cfg))
        decide("refactor_value_output", True, _why_not_refactor_value_output(cfg, flags))
    return Plan(tuple(steps), tuple(skipped), norms)


def _foldable_norms(cfg: HookedTransformerConfig, names: Collection[str]) -> tuple[tuple[str, ...], list[str]]:
    """Returns the norms whose every reader is a linear map of ours, and why others are left."""
    if cfg.normalization_type is None:
        return (), ["the model has no norms"]
    if cfg.normalization_type in ("LNPre", "RMSPre"):
        return (), ["the norms are folded already"]
    if cfg.positional_embedding_type == "shortformer":
        return (), ["positions are added behind the norm, so queries and keys do not read its output alone"]
    if cfg.gated_mlp and cfg.normalization_type == "LN" and not cfg.gated_mlp_bias and not cfg.attn_only:
        return (), ["the gate has no bias that could take in the norm's"]
    norms = ("ln1", "ln_final") if cfg.attn_only else ("ln1", "ln2", "ln_final")
    return norms, []


def _why_not_center_writers(cfg: HookedTransformerConfig) -> str | None:
    if cfg.normalization_type is None:
        return "the model has no norms, so the mean of the residual stream is read"
    if cfg.normalization_type in ("RMS", "RMSPre"):
        return "RMS norms do not take the mean away: it would be missed"
    if cfg.final_rms:
        return "the final RMS norm does not take the mean away: it would be missed"
    if cfg.use_normalization_before_and_after:
        return "a norm stands between the writers and the residual stream"
    if cfg.positional_embedding_type == "shortformer":
        return "positions are not written to the residual stream"
    return None


def _why_not_center_unembed(cfg: HookedTransformerConfig) -> str | None:
    if cfg.output_logits_soft_cap > 0:
        return "the cap of the logits is not linear: a constant would change probabilities"
    return None


def _why_not_refactor_query_key(cfg: HookedTransformerConfig) -> str | None:
    if cfg.n_kv_heads != cfg.n_heads:
        return "keys are shared between heads"
    if cfg.positional_embedding_type == "rotary":
        return "positions rotate queries and keys between their two factors"
    if cfg.use_qk_norm:
        return "a norm stands between the two factors"
    return None


def _why_not_refactor_value_output(cfg: HookedTransformerConfig, flags: Flags) -> str | None:
    if cfg.n_kv_heads != cfg.n_heads:
        return "values are shared between heads"
    if not flags.fold_value_biases:
        return "value biases stand between the two factors (fold_value_biases=False)"
    return None


def apply(decided: Plan, weights: Weights, cfg: HookedTransformerConfig) -> tuple[Weights, HookedTransformerConfig]:
    """Returns the weights that the steps promise, and the config of the model they belong to.

    Nothing is read, and neither `weights` nor `cfg` changes.
    """
    done = copy.copy(cfg)
    for step in decided.steps:
        if step == "fold_ln":
            weights = fold_layer_norm(weights, cfg, norms=decided.norms)
            done.normalization_type = "LNPre" if cfg.normalization_type == "LN" else "RMSPre"
        elif step == "fold_value_biases":
            weights = fold_value_biases(weights, cfg)
        elif step == "center_writing_weights":
            weights = center_writing_weights(weights, cfg)
        elif step == "center_unembed":
            weights = center_unembed(weights, cfg)
        elif step == "refactor_query_key":
            weights = refactor_attention(weights, cfg, query_key=True, value_output=False)
        elif step == "refactor_value_output":
            weights = refactor_attention(weights, cfg, query_key=False, value_output=True)
        else:
            raise AssertionError(step)
    return weights, done
