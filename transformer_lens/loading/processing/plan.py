"""What is legal: the only place that decides which steps of processing are done, and says why not."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.conversion.convert import collapse
from transformer_lens.loading.conversion.schema import EMBEDDING_NORM, OUTPUT_NORMS, QUERY_KEY_NORMS, READERS, WRITERS
from transformer_lens.loading.errors import QuantizedTensorError
from transformer_lens.loading.processing.center_unembed import center_unembed
from transformer_lens.loading.processing.center_writing_weights import center_writing_weights
from transformer_lens.loading.processing.flags import Flags
from transformer_lens.loading.processing.fold_layer_norm import fold_layer_norm
from transformer_lens.loading.processing.fold_value_biases import fold_value_biases
from transformer_lens.loading.processing.refactor_attention import refactor_attention
from transformer_lens.loading.weights import Weights

# The weights whose numbers each step needs, by names without block and underscore.
_NEEDS: Mapping[str, frozenset[str]] = {
    "fold_ln": frozenset(matrix for readers in READERS.values() for matrix, _ in readers),
    "fold_value_biases": frozenset(["attn.W_O"]),
    "center_writing_weights": frozenset(WRITERS),
    "center_unembed": frozenset(["unembed.W_U"]),
    "refactor_query_key": frozenset(["attn.W_Q", "attn.W_K"]),
    "refactor_value_output": frozenset(["attn.W_V", "attn.W_O"]),
}

_WHY_NOT_CENTER_EMBEDDING_NORM = (
    "its output has a mean that differs by token, which no constant takes away, and no reader sees; "
    "W_E before it is centred"
)


@dataclass(frozen=True)
class Plan:
    """The steps that will be done, in order, and those that will not, each with its reason.

    Attributes:
        steps: Names of steps.
        skipped: (step, reason) of every step that was asked for and is left out.
        norms: The norms that are folded.
        kept: (step, reason) of what a step that is done leaves as it is.
    """

    steps: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    norms: tuple[str, ...] = ()
    kept: tuple[tuple[str, str], ...] = ()


def plan(flags: Flags, cfg: HookedTransformerConfig, packed: Collection[str] = ()) -> Plan:
    """Decides what is done.

    ``refactor_factored_attn_matrices`` is two steps, ``refactor_query_key`` and ``refactor_value_output``: models for
    which one is illegal may have the other.

    Args:
        flags: What is asked for.
        cfg: The model's traits.
        packed: Names of weights that are packed: their bytes are not numbers, so no step changes them.

    Raises:
        QuantizedTensorError: The caller has named a step that would have to change packed weights.
    """
    steps: list[str] = []
    skipped: list[tuple[str, str]] = []

    def decide(step: str, asked: bool, why_not: str | None) -> None:
        if asked and why_not is None:
            why_not = _packed_among(_needs(step, cfg), packed)
            if why_not is not None and _flag(step) in flags.explicit:
                raise QuantizedTensorError(
                    f"{_flag(step)}=True was asked for, and {why_not}.\n"
                    "  Leave the argument out, load the packed weights as numbers with dequantize=True, or pack an "
                    "unpacked checkpoint on load (load_in_4bit=True): it is processed first, and then packed."
                )
        if asked and why_not is None:
            steps.append(step)
        elif asked and why_not is not None:
            skipped.append((step, why_not))

    refactor = flags.refactor_factored_attn_matrices
    decide("fold_ln", flags.fold_ln, _why_not_fold_norms(cfg))
    decide("fold_value_biases", flags.fold_value_biases, _why_not_fold_value_biases(cfg))
    decide("center_writing_weights", flags.center_writing_weights, _why_not_center_writers(cfg))
    decide("center_unembed", flags.center_unembed, _why_not_center_unembed(cfg))
    decide("refactor_query_key", refactor, _why_not_refactor_query_key(cfg))
    decide("refactor_value_output", refactor, _why_not_refactor_value_output(cfg, "fold_value_biases" in steps))
    folds = "fold_ln" in steps
    kept = _norms_that_stay(cfg) if folds else ()
    if "center_writing_weights" in steps and cfg.post_embedding_ln:
        kept += (("center_writing_weights of embed.ln", _WHY_NOT_CENTER_EMBEDDING_NORM),)
    return Plan(tuple(steps), tuple(skipped), _norms_before_readers(cfg) if folds else (), kept)


def _flag(step: str) -> str:
    return "refactor_factored_attn_matrices" if step.startswith("refactor_") else step


def _needs(step: str, cfg: HookedTransformerConfig) -> frozenset[str]:
    return _NEEDS[step] | {"mlp.W_out"} if step == "fold_ln" and cfg.is_layer_norm_activation() else _NEEDS[step]


def _packed_among(needed: Collection[str], packed: Collection[str]) -> str | None:
    found = [name for name in packed if _stem(name) in needed]
    return f"packed weights are not changed: {', '.join(collapse(found))}" if found else None


def _stem(name: str) -> str:
    """Returns a parameter's name without block and underscore: ``blocks.3.attn._W_K`` is ``attn.W_K``."""
    head, _, rest = name.partition(".")
    return (rest.partition(".")[2] if head == "blocks" else name).replace("._", ".")


def _norms_before_readers(cfg: HookedTransformerConfig) -> tuple[str, ...]:
    return ("ln1", "ln_final") if cfg.attn_only else ("ln1", "ln2", "ln_final")


def _norms_that_stay(cfg: HookedTransformerConfig) -> tuple[tuple[str, str], ...]:
    """Returns the norms that keep their weights where the others are folded, each with the reason."""
    writing = [EMBEDDING_NORM] if cfg.post_embedding_ln else []
    if cfg.use_normalization_before_and_after:
        writing += OUTPUT_NORMS[:1] if cfg.attn_only else OUTPUT_NORMS
    found = [(norm, "it writes to the residual stream: nothing linear reads it alone") for norm in writing]
    if cfg.use_qk_norm:
        found += [(norm, "queries and keys are not read by a matrix behind it") for norm in QUERY_KEY_NORMS]
    return tuple((f"fold_ln of {norm}", why) for norm, why in found)


def _why_not_fold_norms(cfg: HookedTransformerConfig) -> str | None:
    if cfg.normalization_type is None:
        return "the model has no norms"
    if cfg.normalization_type in ("LNPre", "RMSPre"):
        return "the norms are folded already"
    if cfg.positional_embedding_type == "shortformer":
        return "positions are added behind the norm, so queries and keys do not read its output alone"
    if cfg.gated_mlp and cfg.normalization_type == "LN" and not cfg.gated_mlp_bias and not cfg.attn_only:
        return "the gate has no bias that could take in the norm's"
    return None


def _why_not_fold_value_biases(cfg: HookedTransformerConfig) -> str | None:
    if cfg.use_attention_sinks:
        return "attention weights sum to less than one: a sink takes the rest"
    if cfg.clip_qkv is not None:
        return "values are clipped between their bias and W_O"
    return None


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
    if cfg.clip_qkv is not None:
        return "queries and keys are clipped between the two factors"
    return None


def _why_not_refactor_value_output(cfg: HookedTransformerConfig, value_biases_are_folded: bool) -> str | None:
    if cfg.n_kv_heads != cfg.n_heads:
        return "values are shared between heads"
    if cfg.clip_qkv is not None:
        return "values are clipped between the two factors"
    if not value_biases_are_folded:
        return "value biases stand between the two factors, and fold_value_biases is not done"
    return None


def apply(decided: Plan, weights: Weights, cfg: HookedTransformerConfig) -> tuple[Weights, HookedTransformerConfig]:
    """Returns the weights that the steps promise, and the config of the model they belong to.

    Nothing is read, and neither `weights` nor `cfg` changes.

    Args:
        decided: What `plan` says.
        weights: By our names.
        cfg: Of the model they belong to.
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
