"""What is legal: the only place that decides which steps of processing are done, and says why not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from transformer_lens import anatomy
from transformer_lens.anatomy import Attention, Model
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.conversion.convert import collapse
from transformer_lens.loading.errors import QuantizedTensorError
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
        norms: The norms that are folded, by their names in the model.
        writers: The parameters that are centred, by their names in the model.
        kept: (step, reason) of what a step that is done leaves as it is.
    """

    steps: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    norms: tuple[str, ...] = ()
    writers: tuple[str, ...] = ()
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
    model = anatomy.model_of(cfg)
    steps: list[str] = []
    skipped: list[tuple[str, str]] = []
    uncentred = _why_not_center(model)
    writers = tuple(name for name in model.writers() if name not in uncentred)

    def decide(step: str, asked: bool, why_not: str | None, needed: Iterable[str]) -> None:
        if asked and why_not is None:
            why_not = _packed_among(needed, packed)
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
    readers = [reader.matrix for _, _, readers in model.readers() for reader in readers]
    decide("fold_ln", flags.fold_ln, _why_not_fold_norms(model), readers)
    decide(
        "fold_value_biases", flags.fold_value_biases, _any_layer(model, _why_not_fold_value_biases), _of(model, "W_O")
    )
    no_writer = None if writers else next(iter(uncentred.values()))
    decide("center_writing_weights", flags.center_writing_weights, no_writer, writers)
    decide("center_unembed", flags.center_unembed, _why_not_center_unembed(model), ["unembed.W_U"])
    decide("refactor_query_key", refactor, _any_layer(model, _why_not_refactor_query_key), _of(model, "W_Q", "W_K"))
    folds_values = "fold_value_biases" in steps
    why_not = _any_layer(model, _why_not_refactor_value_output) or (
        None if folds_values else "value biases stand between the two factors, and fold_value_biases is not done"
    )
    decide("refactor_value_output", refactor, why_not, _of(model, "W_V", "W_O"))
    kept = (*_norms_that_stay(model),) if "fold_ln" in steps else ()
    if "center_writing_weights" in steps:
        kept += tuple((f"center_writing_weights of {name}", uncentred[name]) for name in uncentred)
    norms = tuple(name for name, _, _ in model.readers()) if "fold_ln" in steps else ()
    return Plan(tuple(steps), tuple(skipped), norms, writers if "center_writing_weights" in steps else (), kept)


def _flag(step: str) -> str:
    return "refactor_factored_attn_matrices" if step.startswith("refactor_") else step


def _packed_among(needed: Iterable[str], packed: Collection[str]) -> str | None:
    wanted = set(needed)
    found = [name for name in packed if name in wanted]
    return f"packed weights are not changed: {', '.join(collapse(found))}" if found else None


def _of(model: Model, *leaves: str) -> list[str]:
    """Returns the attention matrices of every layer, by name in the model."""
    return [
        f"{layer.prefix}attn.{layer.attends.key_value(leaf) if leaf in ('W_K', 'W_V') else leaf}"
        for layer in model.layers
        for leaf in leaves
    ]


def _any_layer(model: Model, why_not: Callable[[Attention], str | None]) -> str | None:
    """Returns the first layer's reason: a step of attention is done in all layers or in none."""
    return next((reason for layer in model.layers if (reason := why_not(layer.attends))), None)


def _norms_that_stay(model: Model) -> Iterator[tuple[str, str]]:
    """Yields the norms that are never folded, each with the reason; layers alike are named once."""
    found: dict[str, str] = {}
    for layer in model.layers:
        for branch in layer.branches:
            if branch.writes is not None:
                found[branch.writes.name] = "it writes to the residual stream: nothing linear reads it alone"
            if branch.closes is not None:
                found[branch.closes.name] = "its output is the residual stream: nothing linear reads it alone"
    for name, reason in found.items():
        yield f"fold_ln of {name}", reason


def _why_not_fold_norms(model: Model) -> str | None:
    if model.norm_state == "none":
        return "the model has no norms"
    if model.norm_state == "folded":
        return "the norms are folded already"
    if model.embedding.adds_positions_to_queries:
        return "positions are added behind the norm, so queries and keys do not read its output alone"
    if not any(norm.parameters() for _, norm, _ in model.readers()):
        return "no norm with a weight is read by matrices alone"
    unbiased = [
        reader.matrix
        for _, norm, readers in model.readers()
        if norm.has_bias
        for reader in readers
        if reader.bias is None
    ]
    if unbiased:
        return f"a norm has a bias, and there is none to fold it into behind {', '.join(collapse(unbiased))}"
    return None


def _why_not_center(model: Model) -> dict[str, str]:
    """Returns the parameters that write to the residual stream and cannot be centred, each with the reason."""
    out: dict[str, str] = {}
    stream = _why_not_center_the_stream(model)
    embedded = stream
    if model.embedding.norm is not None:
        embedded = None if model.embedding.norm.centers else "the norm behind the embedding does not take the mean away"
    if embedded is not None:
        out["embed.W_E"] = embedded
    if stream is not None and model.embedding.has_positions:
        out["pos_embed.W_pos"] = stream
    for layer in model.layers:
        for branch in layer.branches:
            why_not = stream
            if branch.writes is not None:
                why_not = "a norm stands between the writers and the residual stream"
            elif branch.closes is not None:
                why_not = None if branch.closes.centers else _MISSED
            if why_not is not None:
                out |= {layer.prefix + name: why_not for name in branch.body.writers()}
    return out


_MISSED = "RMS norms do not take the mean away: it would be missed"


def _why_not_center_the_stream(model: Model) -> str | None:
    """Returns why a constant that is added to the residual stream would be seen; None where nothing sees it."""
    if model.norm_state == "none":
        return "the model has no norms, so the mean of the residual stream is read"
    norms = list(model.stream_norms())
    if any(norm is not None and not norm.centers for norm in norms[:-1]):
        return _MISSED
    if norms[-1] is not None and not norms[-1].centers:
        return "the final RMS norm does not take the mean away: it would be missed"
    if any(branch.writes is not None for layer in model.layers for branch in layer.branches):
        return "a norm stands between the writers and the residual stream"
    if any(norm is None for norm in norms):
        return "a branch reads the residual stream without a norm, its mean included"
    if model.embedding.adds_positions_to_queries:
        return "positions are not written to the residual stream"
    return None


def _why_not_fold_value_biases(attention: Attention) -> str | None:
    if attention.has_sinks:
        return "attention weights sum to less than one: a sink takes the rest"
    if attention.clip is not None:
        return "values are clipped between their bias and W_O"
    return None


def _why_not_center_unembed(model: Model) -> str | None:
    if not model.unembedding.is_linear:
        return "the cap of the logits is not linear: a constant would change probabilities"
    return None


def _why_not_refactor_query_key(attention: Attention) -> str | None:
    if attention.shares_keys:
        return "keys are shared between heads"
    if attention.rotary is not None:
        return "positions rotate queries and keys between their two factors"
    if attention.q_norm is not None:
        return "a norm stands between the two factors"
    if attention.clip is not None:
        return "queries and keys are clipped between the two factors"
    return None


def _why_not_refactor_value_output(attention: Attention) -> str | None:
    if attention.shares_keys:
        return "values are shared between heads"
    if attention.clip is not None:
        return "values are clipped between the two factors"
    return None


def apply(decided: Plan, weights: Weights, cfg: HookedTransformerConfig) -> tuple[Weights, HookedTransformerConfig]:
    """Returns the weights that the steps promise, and the config of the model they belong to.

    Nothing is read, and neither `weights` nor `cfg` changes.

    Args:
        decided: What `plan` says.
        weights: By our names.
        cfg: Of the model they belong to.
    """
    done = anatomy.replace_fields(cfg)
    for step in decided.steps:
        if step == "fold_ln":
            weights = fold_layer_norm(weights, cfg, norms=decided.norms)
            done = anatomy.with_norms(done, "folded")
        elif step == "fold_value_biases":
            weights = fold_value_biases(weights, cfg)
        elif step == "center_writing_weights":
            weights = center_writing_weights(weights, cfg, writers=decided.writers)
        elif step == "center_unembed":
            weights = center_unembed(weights, cfg)
        elif step == "refactor_query_key":
            weights = refactor_attention(weights, cfg, query_key=True, value_output=False)
        elif step == "refactor_value_output":
            weights = refactor_attention(weights, cfg, query_key=False, value_output=True)
        else:
            raise AssertionError(step)
    return weights, done
