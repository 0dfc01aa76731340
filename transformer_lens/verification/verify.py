"""The verb: which two models are compared, and how their weights are had."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from transformer_lens import loading
from transformer_lens.components.parameter import pending_parameter_device
from transformer_lens.HookedTransformer import HookedTransformer
from transformer_lens.loading.checkpoint.live_model import load_live
from transformer_lens.loading.errors import LoadingError, QuantizedTensorError
from transformer_lens.loading.loaders.loader import check, parameter_owners
from transformer_lens.verification.comparison import compare
from transformer_lens.verification.streamed import Streamed
from transformer_lens.verification.table import Verification
from transformer_lens.verification.transformers_side import NotStreamedError, streamed_transformers


@torch.no_grad()
def verify(
    model_or_path: HookedTransformer | str | Path,
    *,
    hf_model: nn.Module | None = None,
    adapter: str | Path | None = None,
    tokens: Tensor | None = None,
    show: bool = True,
) -> Verification:
    """Compares our model with transformers on the same weights.

    Each block of ours gets transformers' own residual stream, so that an error is found in the block that makes it and
    not in those behind it. Per block the invariants ``resid_pre + attn_out + mlp_out == resid_post``,
    ``pattern @ v == z`` and ``post @ W_out + b_out == mlp_out`` are checked too; at the end, log-probs of the whole.

    For a path both sides take their weights from our reading of the files (its bits are compared with those of torch
    and safetensors in our tests) one block at a time, in float32: beside activations the peak is about one block, or
    the embedding where that is larger; nothing where the file is in float32 and mapped. A model that is given, ours
    or `hf_model`, is there as a whole already. What cannot be streamed (packed weights) is loaded as a whole; the
    table says so.

    Args:
        model_or_path: A model that ``from_pretrained`` made, or what it takes: a folder, a GGUF file, a hub id, an
            alias.
        hf_model: The transformers model, or a ``PeftModel``; None builds it from where ours came from.
        adapter: A LoRA adapter that is merged into the checkpoint of a path, as ``from_pretrained`` takes it. A model
            says itself which it was loaded with. Where no `hf_model` is given our merge is on both sides.
        tokens: [batch, pos]; None takes 48 that are spread over the vocabulary.
        show: Whether the table is printed.

    Returns:
        The comparisons; ``print(result)`` is the table.

    Raises:
        LoadingError: A model is given that does not say where it came from, without `hf_model`.
    """
    notes: list[str] = []
    prepared = _prepared(model_or_path, hf_model, adapter, notes)
    if isinstance(model_or_path, HookedTransformer):
        ours = Streamed(model_or_path)
    elif prepared is None:
        ours = Streamed(HookedTransformer.from_pretrained_no_processing(model_or_path, device="cpu", adapter=adapter))
    else:
        ours = _streamed_ours(prepared)
    model = ours.model
    assert isinstance(model, HookedTransformer)
    theirs = _theirs(model, model_or_path, hf_model, prepared, notes)
    if tokens is None:
        tokens = (torch.arange(48) * 7919 % model.cfg.d_vocab).reshape(2, 24)
    label = model.cfg.model_name if model.load_report is None else model.load_report.label
    if model.load_report is not None and model.load_report.adapters:
        label += f" with {' and '.join(model.load_report.adapters)}"
    result = Verification(label, tuple(compare(model, ours, theirs, tokens)), tuple(notes))
    if show:
        print(result)
    return result


def _prepared(
    given: HookedTransformer | str | Path, hf_model: nn.Module | None, adapter: str | Path | None, notes: list[str]
) -> loading.Prepared | None:
    """Returns the load that gives the weights of both sides, or of transformers'; None where it is not needed."""
    name, revision, first_n_layers = str(given), None, None
    if isinstance(given, HookedTransformer):
        if adapter is not None:
            raise ValueError("adapter= belongs to a path; a model says itself which adapter it was loaded with.")
        if hf_model is not None:
            return None
        report = given.load_report
        if report is None or report.source not in ("folder", "hub", "gguf"):
            raise LoadingError("The model does not say where it came from: give the transformers model as hf_model=.")
        name, revision, first_n_layers = report.label, report.revision, given.cfg.n_layers
        adapter = report.adapters[0] if report.adapters else None
    request = loading.Request(
        model_name=name,
        revision=revision,
        first_n_layers=first_n_layers,
        flags=loading.Flags.none(),
        device="cpu",
        adapter=None if adapter is None else str(adapter),
    )
    try:
        prepared = loading.prepare(request)
    except QuantizedTensorError:
        notes.append("the checkpoint's weights are packed, so each side was loaded as a whole")
        return None
    if prepared.checkpoint.adapters and hf_model is None:
        notes.append(
            "the adapter was merged by us on both sides; hf_model= a PeftModel compares with peft's own numbers"
        )
    return prepared


def _streamed_ours(prepared: loading.Prepared) -> Streamed:
    with pending_parameter_device("meta"):
        model = HookedTransformer(prepared.cfg, move_to_device=False)
    check(parameter_owners(model), prepared.weights)
    model.load_report = prepared.report()
    return Streamed(model, list(model.blocks), prepared.weights)


def _theirs(
    model: HookedTransformer,
    given: HookedTransformer | str | Path,
    hf_model: nn.Module | None,
    prepared: loading.Prepared | None,
    notes: list[str],
) -> Streamed:
    if hf_model is not None:
        return Streamed(hf_model)
    if prepared is not None:
        try:
            return streamed_transformers(prepared.checkpoint, prepared.architecture, model.cfg.n_layers)
        except NotStreamedError as reason:
            notes.append(f"transformers' model was loaded as a whole: {reason}")
    report = model.load_report
    if report is not None and report.adapters:
        raise LoadingError(
            f"{report.label} with {' and '.join(report.adapters)} cannot be had in parts ({'; '.join(notes)}), and "
            "transformers alone does not know the adapter.\n  Give the model of peft: verify(..., hf_model=PeftModel)."
        )
    name = report.label if isinstance(given, HookedTransformer) and report is not None else str(given)
    return Streamed(load_live(name, torch.float32, None if report is None else report.revision))
