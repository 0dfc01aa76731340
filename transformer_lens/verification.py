"""``verify``: our model against transformers on the user's own checkpoint, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from transformer_lens.components.matrix_owner import numbers_of
from transformer_lens.HookedTransformer import HookedTransformer
from transformer_lens.loading.checkpoint.live_model import load_live
from transformer_lens.loading.errors import LoadingError

# Rounding of float32 leaves about a tenth of this; a wrong number anywhere leaves a hundred times more.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        name: "embed", "blocks.3", "logits" or an invariant of a block.
        error: The largest difference, relative to the spread of what is compared.
        holds: Whether it is within tolerance.
    """

    name: str
    error: float
    holds: bool


@dataclass(frozen=True)
class Verification:
    """What a comparison with transformers found.

    Attributes:
        label: The checkpoint.
        rows: Comparisons in the order of the forward pass.
    """

    label: str
    rows: tuple[Row, ...]

    @property
    def holds(self) -> bool:
        """Whether every comparison is within tolerance."""
        return all(row.holds for row in self.rows)

    @property
    def first_disagreement(self) -> str | None:
        """Name of the first comparison that is not."""
        return next((row.name for row in self.rows if not row.holds), None)

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        lines = [f"{self.label}: our numbers against transformers'"]
        lines += [f"  {row.name:{width}}  {row.error:.1e}  {'ok' if row.holds else 'DIFFERS'}" for row in self.rows]
        first = self.first_disagreement
        lines.append("  all agree" if first is None else f"  the first that disagrees is {first}")
        return "\n".join(lines)


@torch.no_grad()
def verify(
    model_or_path: HookedTransformer | str | Path,
    *,
    hf_model: nn.Module | None = None,
    tokens: Tensor | None = None,
    show: bool = True,
) -> Verification:
    """Compares our model with transformers on the same weights.

    Each block of ours gets transformers' own residual stream, so that an error is found in the block that makes it and
    not in those behind it. Streams are compared and let go one block at a time. Per block the invariants
    ``resid_pre + attn_out + mlp_out == resid_post``, ``pattern @ v == z`` and ``post @ W_out + b_out == mlp_out`` are
    checked too; at the end, log-probs of the whole.

    Args:
        model_or_path: A model that ``from_pretrained`` made, or what it takes: a folder, a hub id, an alias.
        hf_model: The transformers model; None loads it, in float32, from where ours came from.
        tokens: [batch, pos]; None takes 48 that are spread over the vocabulary.
        show: Whether the table is printed.

    Returns:
        The comparisons; ``print(result)`` is the table.

    Raises:
        LoadingError: A model is given that does not say where it came from, without `hf_model`.
    """
    if isinstance(model_or_path, HookedTransformer):
        model = model_or_path
    else:
        model = HookedTransformer.from_pretrained_no_processing(model_or_path, device="cpu")
    label = model.cfg.model_name if model.load_report is None else model.load_report.label
    if hf_model is None:
        hf_model = _transformers_model(model, model_or_path)
    if tokens is None:
        tokens = (torch.arange(48) * 7919 % model.cfg.d_vocab).reshape(2, 24)
    rows = tuple(_compare(model, hf_model, tokens.to(model.cfg.device)))
    result = Verification(label, rows)
    if show:
        print(result)
    return result


def _transformers_model(model: HookedTransformer, given: object) -> nn.Module:
    name = str(given)
    if isinstance(given, HookedTransformer):
        if model.load_report is None or model.load_report.source not in ("folder", "hub"):
            raise LoadingError("The model does not say where it came from: give the transformers model as hf_model=.")
        name = model.load_report.label
    return load_live(name, torch.float32)


def _blocks_of(hf_model: nn.Module) -> nn.ModuleList:
    """Returns the list of blocks of a transformers model: its longest list of modules."""
    lists = [module for module in hf_model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len)


@contextmanager
def _streams(hf_model: nn.Module, seen: dict[int, tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Records what goes into and comes out of each block."""

    def record(index: int, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        before = args[0] if args else kwargs["hidden_states"]
        after = output if isinstance(output, Tensor) else output[0]
        seen[index] = (before.detach(), after.detach())

    handles = []
    for place, block in enumerate(_blocks_of(hf_model)):

        def hook(module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any, place: int = place) -> None:
            record(place, args, kwargs, output)

        handles.append(block.register_forward_hook(hook, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _compare(model: HookedTransformer, hf_model: nn.Module, tokens: Tensor) -> Iterator[Row]:
    streams: dict[int, tuple[Tensor, Tensor]] = {}
    with _streams(hf_model, streams):
        theirs = hf_model(tokens).logits
    # Centring what writes to the residual stream takes its mean away, and nothing else.
    centred = model.load_report is not None and "center_writing_weights" in model.load_report.steps
    ours, _ = model.run_with_cache(tokens, names_filter=lambda name: name == "hook_embed")
    start = model.input_to_embed(tokens)[0]
    yield _row("embed", _stream(start, centred), _stream(streams[0][0], centred))
    for layer in range(model.cfg.n_layers):
        before, after = streams.pop(layer)
        residual = _stream(before, centred).to(model.cfg.dtype)
        out = model(residual, start_at_layer=layer, stop_at_layer=layer + 1)
        wrote = _stream(after, centred) - residual
        yield _row(f"blocks.{layer}", out - residual, wrote)
        yield from _invariants(model, residual, layer)
    yield _row("log-probs", ours.float().log_softmax(-1), theirs.float().log_softmax(-1))


def _stream(residual: Tensor, centred: bool) -> Tensor:
    return residual - residual.mean(-1, keepdim=True) if centred else residual


def _invariants(model: HookedTransformer, residual: Tensor, layer: int) -> Iterator[Row]:
    """Checks what must hold inside a block whatever its weights are."""
    cache: dict[str, Tensor] = {}

    def keep(tensor: Tensor, hook: Any) -> None:
        cache[hook.name.split("hook_")[-1]] = tensor

    prefix = f"blocks.{layer}."
    hooks = [(lambda name: name.startswith(prefix), keep)]
    model.run_with_hooks(residual, start_at_layer=layer, stop_at_layer=layer + 1, fwd_hooks=hooks)
    block = model.blocks[layer]
    total = cache["resid_pre"] + cache["attn_out"]
    if not model.cfg.attn_only:
        total = total + cache["mlp_out"]
        out = cache["post"] @ numbers_of(block.mlp, "W_out") + block.mlp.b_out
        if not model.cfg.use_normalization_before_and_after:
            yield _row(f"{prefix}post @ W_out", out, cache["mlp_out"])
    values = cache["v"].repeat_interleave(cache["pattern"].shape[1] // cache["v"].shape[2], dim=2)
    yield _row(f"{prefix}pattern @ v", torch.einsum("bhqk,bkhd->bqhd", cache["pattern"], values), cache["z"])
    yield _row(f"{prefix}sum of parts", total, cache["resid_post"])


def _row(name: str, ours: Tensor, theirs: Tensor) -> Row:
    theirs = theirs.to(ours.device, torch.float64)
    spread = float(theirs.std()) or 1.0
    error = float((ours.double() - theirs).abs().max()) / spread
    return Row(name, error, error < _TOLERANCE)
