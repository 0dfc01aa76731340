"""Ours against transformers', block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from transformer_lens import anatomy
from transformer_lens.components.matrix_owner import numbers_of
from transformer_lens.HookedTransformer import HookedTransformer
from transformer_lens.verification.streamed import Streamed
from transformer_lens.verification.table import Row
from transformer_lens.verification.transformers_side import blocks_of

# Rounding of float32 leaves about a tenth of this; a wrong number anywhere leaves a hundred times more.
_TOLERANCE = 1e-4


@contextmanager
def _streams(hf_model: nn.Module, n_layers: int, seen: dict[int, tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Records what goes into and comes out of each block, of which there are at least `n_layers`."""

    def record(index: int, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        before = args[0] if args else kwargs["hidden_states"]
        after = output if isinstance(output, Tensor) else output[0]
        seen[index] = (before.detach(), after.detach())

    handles = []
    for place, block in enumerate(blocks_of(hf_model, n_layers)):

        def hook(module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any, place: int = place) -> None:
            record(place, args, kwargs, output)

        handles.append(block.register_forward_hook(hook, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def compare(model: HookedTransformer, ours: Streamed, theirs: Streamed, tokens: Tensor) -> Iterator[Row]:
    """Yields the comparisons in the order of the forward pass.

    Args:
        model: Ours.
        ours: The same, and how its weights are had.
        theirs: The transformers model.
        tokens: [batch, pos].
    """
    streams: dict[int, tuple[Tensor, Tensor]] = {}
    with theirs.running(), _streams(theirs.model, model.cfg.n_layers, streams):
        expected = theirs.model(tokens.to(_device_of(theirs.model)), use_cache=False).logits
    # Centring what writes to the residual stream takes its mean away, and nothing else.
    centred = model.load_report is not None and "center_writing_weights" in model.load_report.steps
    tokens = tokens.to(model.cfg.device)
    with ours.running():
        found = model(tokens)
        start = model.input_to_embed(tokens)[0]
        yield _row("embed", _stream(start, centred), _stream(streams[0][0], centred))
        for layer in range(model.cfg.n_layers):
            before, after = (stream.to(start.device) for stream in streams.pop(layer))
            residual = _stream(before, centred).to(model.cfg.dtype)
            with ours.holding(model.blocks[layer]):
                out = model(residual, start_at_layer=layer, stop_at_layer=layer + 1)
                wrote = _stream(after, centred) - residual
                yield _row(f"blocks.{layer}", out - residual, wrote)
                yield from _invariants(model, residual, layer)
    yield _row("log-probs", found.float().log_softmax(-1), expected.float().log_softmax(-1))


def _device_of(hf_model: nn.Module) -> torch.device:
    """Returns where a model's parameters are; one that is streamed runs on the CPU."""
    device = next(hf_model.parameters()).device
    return torch.device("cpu") if device.type == "meta" else device


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
    block, record = model.blocks[layer], anatomy.layer_of(model.cfg, layer)
    if record.mlp is not None and record.mlp.writes_plainly and record.mlp.writes_by_one_matrix:
        out = cache["post"] @ numbers_of(block.mlp, "W_out") + block.mlp.b_out
        yield _row(f"{prefix}post @ W_out", out, cache["mlp_out"])
    values = cache["v"].repeat_interleave(cache["pattern"].shape[1] // cache["v"].shape[2], dim=2)
    yield _row(f"{prefix}pattern @ v", torch.einsum("bhqk,bkhd->bqhd", cache["pattern"], values), cache["z"])
    if record.adds_up:
        total = cache["resid_pre"] + cache["attn_out"] + (cache["mlp_out"] if record.mlp is not None else 0.0)
        yield _row(f"{prefix}sum of parts", total, cache["resid_post"])


def _row(name: str, ours: Tensor, theirs: Tensor) -> Row:
    theirs = theirs.to(ours.device, torch.float64)
    spread = float(theirs.std()) or 1.0
    error = float((ours.double() - theirs).abs().max()) / spread
    return Row(name, error, error < _TOLERANCE)
