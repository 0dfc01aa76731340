"""Weights of one's own: a state dict, in memory or in a file, and the config that says what it is."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading import loaders, processing
from transformer_lens.loading.architectures import NANOGPT, own_names
from transformer_lens.loading.architectures.upstream_formats import UPSTREAM_FORMATS
from transformer_lens.loading.checkpoint import Checkpoint, open_checkpoint
from transformer_lens.loading.checkpoint.bin_file import read_nested
from transformer_lens.loading.checkpoint.io import IOChoice, choose_io
from transformer_lens.loading.checkpoint.safetensors import read_header
from transformer_lens.loading.conversion import Architecture, Converted, convert, read_config
from transformer_lens.loading.conversion.convert import collapse
from transformer_lens.loading.errors import MissingTensorError, UnexpectedTensorError, UnknownModelError
from transformer_lens.loading.placement.devices import place
from transformer_lens.loading.plan_load import refuse_what_does_not_fit
from transformer_lens.loading.pretrained import Prepared, timed
from transformer_lens.loading.quantization.quantization import Quantization
from transformer_lens.loading.request import Request, refuse_absent_device
from transformer_lens.loading.sources import FolderSource, resolve_tokenizer
from transformer_lens.loading.state_dicts import with_norms_of
from transformer_lens.loading.weights import LazyTensor, Weights

StateDict = Mapping[str, Any] | str | Path
# What training scripts call the state dict inside their checkpoint.
_INSIDE = ("model", "state_dict", "model_state_dict")
# What torch.compile and DistributedDataParallel put before every name.
_WRAPPERS = ("_orig_mod.", "module.")


def prepare_state_dict(given: StateDict, cfg: HookedTransformerConfig | None, request: Request) -> Prepared:
    """Decides everything about a load of one's own weights; reads headers, no numbers.

    Args:
        given: A state dict, the checkpoint of a training script around one, or the path of a file or folder that
            holds either. Names are ours, or nanoGPT's; of a dict nothing is copied, and nothing is written to it.
        cfg: Of the model to be, left as it is; None takes the ``model_args`` of a nanoGPT checkpoint.
        request: Flags, modes, device and dtype; a device that is None is the config's.

    Raises:
        LoadingError: Of the kind that ``docs/errors.md`` lists.
        ValueError: There is no config, or it leaves open what nothing else says.
    """
    refuse_absent_device(request)
    choice = loaders.choose(request.load_mode, loaders.can_assign())
    seconds: dict[str, float] = {}
    with timed(seconds, "open"):
        checkpoint = open_state_dict(given, request.io)
    with timed(seconds, "plan"):
        cfg = _config_of(checkpoint, request) if cfg is None else copy.deepcopy(cfg)
        if request.device is not None:
            cfg.device = str(torch.device(request.device))
        converted, architecture, cfg = _converted(checkpoint, cfg, request.flags.fold_ln)
        cfg.dtype = converted.weights["embed.W_E"].dtype if request.dtype is None else request.dtype
        plan = processing.plan(request.flags, cfg)
        weights, cfg = processing.apply(plan, converted.weights, cfg)
        weights = place(weights, cfg)
    source = None if cfg.tokenizer_name is None else resolve_tokenizer(cfg.tokenizer_name)
    quantization = Quantization(checkpoint, architecture, None, False)
    prepared = Prepared(
        cfg, weights, plan, converted, checkpoint, architecture, source, request, choice, quantization, seconds
    )
    if request.check_memory:
        refuse_what_does_not_fit(prepared, with_options=False)
    return prepared


def convert_nanogpt(state_dict: Mapping[str, Any], cfg: HookedTransformerConfig) -> dict[str, Tensor]:
    """Returns the weights of a nanoGPT state dict in our names and shapes, as views of its own."""
    return _converted(open_state_dict(state_dict), cfg, fold_ln=True)[0].weights.state_dict()


def convert_upstream_format(
    name: str, state_dict: Mapping[str, Any], cfg: HookedTransformerConfig
) -> dict[str, Tensor]:
    """Returns the weights of a state dict in one of upstream's own formats in our names and shapes, as views.

    Args:
        name: Of the format: "neel", "neel-solu-old" or "mingpt".
        state_dict: Left as it is.
        cfg: Of the model.
    """
    checkpoint = open_state_dict(state_dict)
    architecture = replace(UPSTREAM_FORMATS[name], said_by="config")
    cfg = with_norms_of(("ln_final.w",), cfg, True)
    said = {"n_layers": cfg.n_layers}
    return convert(checkpoint.weights, architecture, cfg, said, checkpoint.label).weights.state_dict()


def open_state_dict(given: StateDict, io: str = "auto") -> Checkpoint:
    """Returns a state dict as a checkpoint, its ``model_args`` as the config; the names lose what wraps the model.

    Args:
        given: The state dict, a checkpoint around it, or the path of a file or folder that holds either.
        io: "auto", "map" or "read".

    Raises:
        CorruptCheckpointError: A file is broken, or would run code.
        UnknownModelError: The path leads nowhere.
    """
    choice: IOChoice | None = None
    beside: Mapping[str, Any] = {}
    if isinstance(given, Mapping):
        label = "the state dict"
        inside = next((given[name] for name in _INSIDE if isinstance(given.get(name), Mapping)), None)
        tensors, beside = (given, {}) if inside is None else (inside, given)
        weights = Weights({str(name): _borrowed(name, tensor, label) for name, tensor in tensors.items()})
    else:
        path, label = Path(given).expanduser(), str(given)
        if path.is_dir():
            found = open_checkpoint(FolderSource(path, label), {}, lambda key: False, io)
            weights, choice = found.weights, found.io
        elif path.is_file():
            choice = choose_io(io, path)
            if path.suffix == ".safetensors":
                weights = Weights({key: one.promise(key, choice.mode) for key, one in read_header(path).items()})
            else:
                records, beside = read_nested(path, _INSIDE, choice.mode)
                weights = Weights(records)
        else:
            raise UnknownModelError(f"{label!r}: there is no such file or folder (seen from {Path.cwd()}).")
    said = beside.get("model_args")
    config = {str(name): value for name, value in said.items()} if isinstance(said, Mapping) else {}
    return Checkpoint(label, "state dict", None, config, _unwrapped(weights), choice)


def _borrowed(name: Any, tensor: Any, label: str) -> LazyTensor:
    if not isinstance(name, str) or not isinstance(tensor, Tensor):
        raise UnexpectedTensorError(
            f"{label} has {str(name)[:80]!r}, which is a {type(tensor).__name__} and not a tensor.\n"
            f"  Give the state dict itself, or a checkpoint that holds it under one of {', '.join(_INSIDE)}."
        )
    return LazyTensor.of(tensor.detach(), name, label)


def _unwrapped(weights: Weights) -> Weights:
    for wrapper in (*_WRAPPERS, *_WRAPPERS):
        if weights and all(name.startswith(wrapper) for name in weights):
            weights = Weights({name.removeprefix(wrapper): promise for name, promise in weights.items()})
    return weights


def _config_of(checkpoint: Checkpoint, request: Request) -> HookedTransformerConfig:
    """Returns the config that a nanoGPT checkpoint brings."""
    if not checkpoint.config:
        raise ValueError(
            f"{checkpoint.label} does not say what model it is of: give its HookedTransformerConfig (cfg=).\n"
            "  Only the checkpoint of a nanoGPT run brings its own, under 'model_args'."
        )
    fields = read_config(NANOGPT, checkpoint.config, checkpoint.label)
    name = Path(checkpoint.label).stem
    return HookedTransformerConfig(**fields, model_name=name, n_devices=request.n_devices, init_weights=False)


def _converted(
    checkpoint: Checkpoint, cfg: HookedTransformerConfig, fold_ln: bool
) -> tuple[Converted, Architecture, HookedTransformerConfig]:
    """Returns the weights in our names, the table they were read by, and the config of the model before processing."""
    weights, label = checkpoint.weights, checkpoint.label
    is_nanogpt = any(prefix + NANOGPT.anchor in weights for prefix in NANOGPT.prefixes)
    if not is_nanogpt and "embed.W_E" not in weights:
        raise MissingTensorError(
            f"{label} holds neither 'embed.W_E' (our names) nor 'transformer.wte.weight' (nanoGPT's).\n"
            f"  it holds: {', '.join(collapse(weights, limit=5))}\n"
            "  a checkpoint in the names of transformers is loaded by from_pretrained, from a folder with config.json."
        )
    if cfg.d_vocab == -1:
        rows = weights[next(name for name in ("embed.W_E", "transformer.wte.weight", "wte.weight") if name in weights)]
        raise ValueError(f"cfg.d_vocab is not set; {rows.origin.key} of {label} has {rows.shape[0]} rows.")
    said: Mapping[str, Any] = {}
    if is_nanogpt:
        cfg = with_norms_of(("ln_final.w",), cfg, fold_ln)
        biased = any(f"{prefix}ln_f.bias" in weights for prefix in NANOGPT.prefixes)
        said = {"bias": biased, **checkpoint.config}
        architecture = NANOGPT if checkpoint.config else replace(NANOGPT, said_by="config")
    else:
        cfg = with_norms_of(weights, cfg, fold_ln)
        architecture = own_names(cfg)
    return convert(weights, architecture, cfg, said, label), architecture, copy.copy(cfg)
