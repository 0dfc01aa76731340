"""Opens what a request names: files or a live model, with the adapter merged into them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from transformer_lens.loading import architectures
from transformer_lens.loading.checkpoint import (
    Checkpoint,
    from_live_model,
    open_checkpoint,
    open_gguf,
    read_config_json,
)
from transformer_lens.loading.checkpoint.adapter import Adapter, Holds, adapters_in, open_adapter
from transformer_lens.loading.checkpoint.checkpoint import Skip
from transformer_lens.loading.checkpoint.live_model import load_dequantized
from transformer_lens.loading.checkpoint.merge import with_adapter
from transformer_lens.loading.conversion import Architecture, read_config
from transformer_lens.loading.conversion.convert import refuse_more_layers
from transformer_lens.loading.errors import LoadingError
from transformer_lens.loading.quantization.methods import (
    BITSANDBYTES,
    PACKING_FIELDS,
    method_of,
    refuse,
    refuse_wrong_scales,
)
from transformer_lens.loading.quantization.settings import settings_of
from transformer_lens.loading.quantization.stored import with_packed_matrices
from transformer_lens.loading.request import Request
from transformer_lens.loading.sources import GGUFSource, Source, resolve
from transformer_lens.loading.sources.tokenizers import has_tokenizer


def resolved(request: Request, name: str, revision: str | None = None, subfolder: str | None = None) -> Source:
    """Returns where a name's files are, reached as the request says."""
    return resolve(
        name,
        revision=revision,
        subfolder=subfolder,
        token=request.token,
        cache_dir=None if request.cache_dir is None else str(request.cache_dir),
        local_files_only=request.local_files_only,
        fetch=request.fetch,
    )


@dataclass(frozen=True)
class Opened:
    """What a request names, opened.

    Attributes:
        checkpoint: With the adapter merged, if there is one.
        architecture: Its table.
        tokenizer: Where the tokenizer is.
    """

    checkpoint: Checkpoint
    architecture: Architecture
    tokenizer: Source | None


def open_request(request: Request, source: Source | None) -> Opened:
    """Opens what a request names; an adapter is merged into whatever that is, or refused.

    Raises:
        LoadingError: Of the kind that ``docs/errors.md`` lists.
    """
    base, adapter, its_source = _base_of(request, source)
    if request.hf_model is not None:
        checkpoint, architecture = _open_live(request.hf_model, request.model_name, request)
    else:
        assert base is not None
        checkpoint, architecture = _open_files(request, base)
    if adapter is None:
        return Opened(checkpoint, architecture, base)
    before = checkpoint.config.get("vocab_size")
    checkpoint = with_adapter(checkpoint, adapter, architecture, request.first_n_layers)
    # New tokens are in the adapter's own tokenizer. So is what else was trained with it, where it was named itself.
    takes_own = its_source is source or checkpoint.config.get("vocab_size") != before
    if takes_own and its_source is not None and has_tokenizer(its_source):
        return Opened(checkpoint, architecture, its_source)
    return Opened(checkpoint, architecture, base)


def _base_of(request: Request, source: Source | None) -> tuple[Source | None, Adapter | None, Source | None]:
    """Returns where the base is, and the adapter with the place that it is from."""
    given = None if request.adapter is None else resolved(request, request.adapter)
    if isinstance(given, GGUFSource):
        raise LoadingError(f"adapter={request.adapter!r} is a GGUF file; a LoRA adapter is a folder as peft writes it.")
    adapter = None if given is None else open_adapter(given, "map")
    if request.hf_model is not None or source is None or isinstance(source, GGUFSource):
        return source, adapter, given
    holds = adapters_in(source)
    if holds is not Holds.ADAPTER:
        if holds is Holds.BOTH and adapter is None:
            warnings.warn(
                f"{source.label} holds an adapter (adapter_config.json) beside a whole model. The model is loaded and "
                "the adapter is not merged: give it with adapter=, if it is meant.",
                stacklevel=2,
            )
        return source, adapter, given
    if adapter is not None:
        raise LoadingError(
            f"{source.label} is an adapter itself, and adapter={request.adapter!r} is another: one is merged at a time."
            "\n  Give the base as the name; several are joined by peft (add_weighted_adapter)."
        )
    adapter = open_adapter(source, "map")
    if adapter.base is None:
        raise LoadingError(f"{source.label} is an adapter that does not name its base: load the base with adapter=.")
    base = resolved(request, adapter.base, adapter.config.base_revision)
    if not isinstance(base, GGUFSource) and adapters_in(base) is Holds.ADAPTER:
        raise LoadingError(
            f"{source.label} is an adapter for {adapter.base}, which is an adapter itself.\n"
            "  Merge that into its base first (peft's merge_and_unload), and give the result with adapter=."
        )
    return base, adapter, source


def _open_files(request: Request, source: Source) -> tuple[Checkpoint, Architecture]:
    """Returns the checkpoint in files and its table."""
    if isinstance(source, GGUFSource):
        checkpoint = open_gguf(source, io=request.io)
        return _cut(checkpoint, architectures.find(checkpoint.config, checkpoint.label), request)
    config = read_config_json(source)
    method = method_of(config, source.label)
    architecture = architectures.find(config, source.label)
    if method is not None and method in architecture.unpacks:
        config, method = {name: value for name, value in config.items() if name not in PACKING_FIELDS}, None
    if method is not None and method != BITSANDBYTES:
        refuse(method, source.label, request.dequantize)
        # What transformers does not find it makes up, and what it does not know it leaves out.
        stored = open_checkpoint(source, config, lambda key: False, request.io).weights
        n_layers = _n_layers(architecture, config, source.label)
        refuse_more_layers(stored, architecture, n_layers, source.label, config)
        refuse_wrong_scales(method, stored, config, source.label)
        return _open_live(load_dequantized(source, method), source.label, request)
    checkpoint = open_checkpoint(source, config, _left_out(architecture, config, source.label, request), request.io)
    if method is not None:
        settings = settings_of(config["quantization_config"], f"the quantization_config of {source.label}")
        plain = {name: value for name, value in config.items() if name != "quantization_config"}
        weights = with_packed_matrices(checkpoint.weights, settings, source.label)
        checkpoint = replace(checkpoint, config=plain, weights=weights)
    return checkpoint, architecture


def _open_live(hf_model: nn.Module, label: str | None, request: Request) -> tuple[Checkpoint, Architecture]:
    checkpoint = from_live_model(hf_model, label)
    return _cut(checkpoint, architectures.find(checkpoint.config, checkpoint.label), request)


def _cut(checkpoint: Checkpoint, architecture: Architecture, request: Request) -> tuple[Checkpoint, Architecture]:
    """Returns a checkpoint without the layers that are not asked for, and its table."""
    skip = _left_out(architecture, checkpoint.config, checkpoint.label, request)
    kept = checkpoint.weights.without(key for key in checkpoint.weights if skip(key))
    return replace(checkpoint, weights=kept), architecture


def _left_out(architecture: Architecture, config: Mapping[str, Any], label: str, request: Request) -> Skip:
    """Returns a predicate that is true for keys of layers that are not asked for."""
    if request.first_n_layers is None:
        return lambda key: False
    return architecture.left_out(request.first_n_layers, _n_layers(architecture, config, label))


def _n_layers(architecture: Architecture, config: Mapping[str, Any], label: str) -> int:
    """Returns how many layers a config.json says there are, whatever packs them."""
    plain = {name: value for name, value in config.items() if name not in PACKING_FIELDS}
    return int(read_config(architecture, plain, label)["n_layers"])
