"""Opens what a request names: files or a live model, with the adapter merged into them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

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
from transformer_lens.loading.checkpoint.live_model import load_dequantized
from transformer_lens.loading.checkpoint.merge import with_adapter
from transformer_lens.loading.conversion import Architecture
from transformer_lens.loading.errors import LoadingError
from transformer_lens.loading.quantization.methods import BITSANDBYTES, FP8, method_of, refuse, refuse_cut_blocks
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
        return checkpoint, architectures.find(checkpoint.config, checkpoint.label)
    config = read_config_json(source)
    method = method_of(config, source.label)
    architecture = architectures.find(config, source.label)
    skip = architecture.beyond(request.first_n_layers)
    if method is not None and method in architecture.unpacks:
        config = {name: value for name, value in config.items() if name != "quantization_config"}
        return open_checkpoint(source, config, skip, request.io), architecture
    if method is not None and method != BITSANDBYTES:
        refuse(method, source.label, request.dequantize)
        if method == FP8:
            refuse_cut_blocks(open_checkpoint(source, config, skip, request.io).weights, config, source.label)
        return _open_live(load_dequantized(source, method), source.label, request)
    checkpoint = open_checkpoint(source, config, skip, request.io)
    if method is not None:
        settings = settings_of(config["quantization_config"], f"the quantization_config of {source.label}")
        plain = {name: value for name, value in config.items() if name != "quantization_config"}
        weights = with_packed_matrices(checkpoint.weights, settings, source.label)
        checkpoint = replace(checkpoint, config=plain, weights=weights)
    return checkpoint, architecture


def _open_live(hf_model: nn.Module, label: str | None, request: Request) -> tuple[Checkpoint, Architecture]:
    checkpoint = from_live_model(hf_model, label)
    architecture = architectures.find(checkpoint.config, checkpoint.label)
    skip = architecture.beyond(request.first_n_layers)
    kept = checkpoint.weights.without(key for key in checkpoint.weights if skip(key))
    return replace(checkpoint, weights=kept), architecture
