"""The calls of the pipeline, in order: source, checkpoint, conversion, processing, loader."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from transformer_lens import anatomy
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading import loaders, processing
from transformer_lens.loading.architectures.saved_model import MODEL_TYPE as SAVED
from transformer_lens.loading.checkpoint import Checkpoint
from transformer_lens.loading.conversion import Architecture, Converted, convert, read_config
from transformer_lens.loading.conversion.convert import refuse_more_layers
from transformer_lens.loading.errors import LoadingError
from transformer_lens.loading.loaders.choose import Choice
from transformer_lens.loading.memory import processed
from transformer_lens.loading.memory.ambient import plain_torch
from transformer_lens.loading.memory.arithmetic import held_as
from transformer_lens.loading.memory.fresh import give_back
from transformer_lens.loading.memory.pages import PAGES
from transformer_lens.loading.memory.threads import load_threads, one_thread_each
from transformer_lens.loading.open_request import open_request, resolved
from transformer_lens.loading.placement.devices import place
from transformer_lens.loading.processing import Plan
from transformer_lens.loading.progress import byte_progress
from transformer_lens.loading.quantization.quantization import Quantization
from transformer_lens.loading.report import LoadReport, shortened
from transformer_lens.loading.request import Request
from transformer_lens.loading.savings import Savings
from transformer_lens.loading.sources import (
    FolderSource,
    HubSource,
    Source,
    TrainingCheckpoint,
    find_training_checkpoint,
    load_tokenizer,
    read_stop_tokens,
    stop_tokens_of,
)
from transformer_lens.loading.sources.names import hub_name
from transformer_lens.loading.sources.resolve import named_tokenizer
from transformer_lens.loading.sources.tokenizers import has_tokenizer
from transformer_lens.loading.versions import versions
from transformer_lens.loading.weights import Held, Weights
from transformer_lens.utilities.devices import get_device


@dataclass(frozen=True, repr=False)
class Prepared:
    """A load whose every decision is made and whose numbers are not read.

    Attributes:
        cfg: Of the model to be, after processing.
        weights: Promises by the model's names, in its dtype.
        plan: Steps done and left out.
        converted: What the table took of the checkpoint.
        checkpoint: What it is loaded from.
        architecture: The table.
        source: Where the tokenizer is; None without a name.
        request: What was asked for.
        choice: The loader.
        quantization: What is packed, and why what is not.
        seconds: By stage so far.
        cached: What the cache of processed weights has for it.
    """

    cfg: HookedTransformerConfig
    weights: Weights
    plan: Plan
    converted: Converted
    checkpoint: Checkpoint
    architecture: Architecture
    source: Source | None
    request: Request
    choice: Choice
    quantization: Quantization
    seconds: dict[str, float] = field(default_factory=dict)
    cached: processed.Lookup = field(default_factory=processed.Lookup)

    def __repr__(self) -> str:
        return (
            f"<Prepared load of {shortened(self.checkpoint.label)} ({self.architecture.name}): {self.choice.mode}, "
            f"{_name(self.cfg.dtype)} on {self.cfg.device}, {len(self.weights)} parameters>"
        )

    def load_tokenizer(self) -> Any | None:
        """Returns the tokenizer beside the weights, or None where there is none."""
        if self.source is None:
            return None
        named = self.cfg.tokenizer_name
        with timed(self.seconds, "tokenizer"):
            try:
                if named is not None and not has_tokenizer(self.source):
                    return load_tokenizer(named_tokenizer(named, self.source))
                return load_tokenizer(self.source, trust_remote_code=self.request.trust_remote_code)
            except LoadingError as error:
                if self.request.hf_model is None and named is None:
                    raise
                warnings.warn(f"The model has no tokenizer: {error}\n  Give one with tokenizer=....", stacklevel=3)
                return None

    def stop_tokens(self) -> tuple[int, ...]:
        """Returns the tokens of the vocabulary that the checkpoint's generation config ends a text with.

        Raises:
            CorruptCheckpointError: They are not to be read.
        """
        if self.request.hf_model is not None:
            generation_config = self.request.hf_model.generation_config
            if generation_config is None:
                said = self.checkpoint.config.get("eos_token_id")
            else:
                said = generation_config.eos_token_id
            found = read_stop_tokens(said, f"eos_token_id of {self.checkpoint.label}")
        elif self.source is None or self.checkpoint.kind == "state dict":
            return ()
        else:
            found = stop_tokens_of(self.source, self.checkpoint.config)
        return tuple(token for token in found if token < self.cfg.d_vocab_out)

    def load_into(self, module: nn.Module) -> LoadReport:
        """Keeps every promise, places the results in a module, and reports."""
        with plain_torch():
            loaders.warn_of_fallback(self.choice)
            if self.cached.outcome == processed.TAKEN:
                try:
                    with timed(self.seconds, "check"):
                        self.cached.check()
                    self._keep_promises(module)
                except Exception as problem:
                    # Whatever is wrong with the entry: what is wrong with the load is raised again without it.
                    return self._without_entry(problem).load_into(module)
                return self.report()
            self._keep_promises(module)
            kept = self.cached.keep(module)
            if kept.outcome:
                self.seconds["keep"] = kept.seconds
            return replace(self, cached=kept).report()

    def _without_entry(self, problem: Exception) -> Prepared:
        """Returns the load as it is without the cache, whose entry turned out to be broken or gone."""
        cached = self.cached.without_entry(problem)
        return replace(self, weights=cached.weights, cached=cached)

    def _keep_promises(self, module: nn.Module) -> None:
        with (
            timed(self.seconds, "load"),
            one_thread_each() as threads,
            byte_progress(self.weights.nbytes, self.checkpoint.label, self.request.progress) as advance,
        ):
            PAGES.begin()
            self.choice.loader().load(module, self.weights, advance, threads)
            give_back()

    def instead(self, request: Request) -> Prepared:
        """Decides another load of the same checkpoint, which is not opened again."""
        with warnings.catch_warnings():
            # What there is to warn of has been said.
            warnings.simplefilter("ignore")
            cfg = self.cfg
            step = None
            if cfg.checkpoint_value is not None:
                step = TrainingCheckpoint(
                    cfg.checkpoint_index, cfg.checkpoint_value, cfg.checkpoint_label_type or "step"
                )
            return _decided(request, self.source, step, self.checkpoint, self.architecture, {})

    def tied(self) -> frozenset[str]:
        """Returns the parameters that read the same tensor as another."""
        return frozenset(name for name, _ in self.converted.tied)

    def savings(self) -> tuple[str, ...]:
        """Returns what other arguments would save, a sentence each."""
        is_state_dict = self.checkpoint.kind == "state dict"
        found = self.converted.weights
        return Savings(self.weights, found, self.plan.steps, self.choice.mode, is_state_dict).sentences()

    def report(self) -> LoadReport:
        """Returns the facts of the load."""
        by_device = held_as(self.weights, self.choice.mode, self.tied())
        held = {kind: sum(kinds[kind] for kinds in by_device.values()) for kind in Held}
        io = self.checkpoint.io
        return LoadReport(
            label=self.checkpoint.label,
            source=self.checkpoint.kind,
            revision=self.checkpoint.revision,
            architecture=self.architecture.name,
            load_mode=self.choice.mode,
            requested_mode=self.request.load_mode,
            reason=self.choice.reason,
            io="" if io is None else f"{io.mode}: {io.reason}",
            dtype=_name(self.cfg.dtype),
            source_dtype=_name(self.checkpoint.dtype_of(self.converted.weights["embed.W_E"])),
            device=str(self.cfg.device),
            bytes_mapped=held[Held.MAPPED],
            bytes_borrowed=held[Held.BORROWED],
            bytes_allocated=held[Held.FRESH],
            bytes_per_device={device: sum(kinds.values()) for device, kinds in by_device.items()},
            largest_tensor=max((tensor.nbytes for tensor in self.weights.values()), default=0),
            seconds=dict(self.seconds),
            memory=f"{PAGES}, threads: {load_threads()}" if held[Held.FRESH] else "",
            steps=self.plan.steps,
            skipped=(*self.plan.skipped, *self.plan.kept, *self.quantization.kept(self.weights)),
            read=self.converted.used,
            zero_filled=self.converted.zero_filled,
            tied=self.converted.tied,
            dropped=dict(self.converted.dropped),
            savings=self.savings(),
            processed_cache=self.cached.outcome,
            processed_cache_file=str(self.cached.path) if self.cached.path.name else "",
            processed_cache_reason=self.cached.reason,
            versions=versions(),
            links=dict(self.checkpoint.links),
            adapters=self.checkpoint.adapters,
            merged={key: merge.what for key, merge in self.checkpoint.merged.items()},
            **self.quantization.facts(self.weights, self.converted),
        )


def prepare(request: Request) -> Prepared:
    """Decides everything about a load; reads headers and configs, no numbers.

    Raises:
        LoadingError: Of the kind that ``docs/errors.md`` lists.
    """
    with plain_torch():
        loaders.choose(request.load_mode, loaders.can_assign())
        seconds: dict[str, float] = {}
        with timed(seconds, "open"):
            source, step = _source(request)
            opened = open_request(request, source)
        return _decided(request, opened.tokenizer, step, opened.checkpoint, opened.architecture, seconds)


def _decided(
    request: Request,
    source: Source | None,
    step: TrainingCheckpoint | None,
    checkpoint: Checkpoint,
    architecture: Architecture,
    seconds: dict[str, float],
) -> Prepared:
    """Decides everything about the load of a checkpoint that is open."""
    choice = loaders.choose(request.load_mode, loaders.can_assign())
    if architecture.model_type == SAVED:
        request = _as_saved(request)
    with timed(seconds, "plan"):
        cfg = _config(request, checkpoint, architecture, step)
        file_cfg = copy.copy(cfg)
        quantization = Quantization.of(request, checkpoint, architecture)
        converted = convert(quantization.file(), architecture, cfg, checkpoint.config, checkpoint.label)
        weights, cfg = _with_context_length(converted.weights, cfg, request.n_ctx)
        if request.dtype is None:
            cfg.dtype = checkpoint.dtype_of(converted.weights["embed.W_E"])
        plan = processing.plan(request.flags, cfg, [name for name, tensor in weights.items() if tensor.packed])
        done, cfg = processing.apply(plan, weights, cfg)
        weights = quantization.pack(place(done, cfg), done, converted.weights, file_cfg, cfg.dtype)
        quantization.require(weights)
        cached = processed.look_up(request.cache_processed, weights, checkpoint, plan, _name(cfg.dtype), request.io)
        if cached.outcome == processed.TAKEN:
            weights = place(cached.weights, cfg)
    return Prepared(
        cfg, weights, plan, converted, checkpoint, architecture, source, request, choice, quantization, seconds, cached
    )


def _as_saved(request: Request) -> Request:
    """Returns a request that leaves a saved model as it was saved, but for what the caller has named."""
    is_named = "dtype" in request.flags.explicit or request.dtype != torch.float32
    return replace(request, flags=request.flags.only_explicit(), dtype=request.dtype if is_named else None)


def _source(request: Request) -> tuple[Source | None, TrainingCheckpoint | None]:
    """Returns where the name points, and the training checkpoint that is meant."""
    if request.model_name is None:
        return None, None
    source = resolved(request, request.model_name, request.revision, request.subfolder)
    if request.checkpoint_index is None and request.checkpoint_value is None:
        return source, None
    if not isinstance(source, (FolderSource, HubSource)):
        raise ValueError(f"{source.label} is one file, and holds no training checkpoints.")
    found = find_training_checkpoint(
        hub_name(request.model_name), source, request.checkpoint_index, request.checkpoint_value
    )
    if found.file is not None:
        return replace(source, weights=found.file), found
    if request.revision is not None and request.revision != found.revision:
        raise ValueError(
            f"revision={request.revision!r} and the training checkpoint {found.revision!r} are two revisions."
        )
    return resolved(request, request.model_name, found.revision, request.subfolder), found


def source_of(request: Request) -> Source:
    """Returns where the name of a request points."""
    source, _ = _source(request)
    if source is None:
        raise ValueError("A live model has no files.")
    return source


def _config(
    request: Request, checkpoint: Checkpoint, architecture: Architecture, step: TrainingCheckpoint | None
) -> HookedTransformerConfig:
    """Returns the config of the unprocessed model, at the checkpoint's own context length."""
    fields = read_config(architecture, checkpoint.config, checkpoint.label)
    refuse_more_layers(checkpoint.weights, architecture, fields["n_layers"], checkpoint.label, checkpoint.config)
    if request.first_n_layers is not None:
        if request.first_n_layers > fields["n_layers"]:
            raise ValueError(
                f"first_n_layers = {request.first_n_layers}, and {checkpoint.label} has {fields['n_layers']}."
            )
        fields = anatomy.first_layers(fields, request.first_n_layers)
    if request.default_prepend_bos is not None:
        fields["default_prepend_bos"] = request.default_prepend_bos
    device = get_device() if request.device is None else torch.device(request.device)
    cfg = HookedTransformerConfig(
        **fields,
        model_name=(request.model_name or checkpoint.label).rstrip("/").split("/")[-1],
        dtype=torch.float32 if request.dtype is None else request.dtype,
        device=str(device),
        init_weights=False,
        trust_remote_code=request.trust_remote_code,
        from_checkpoint=step is not None,
        checkpoint_value=None if step is None else step.value,
        checkpoint_index=None if step is None else step.index,
        checkpoint_label_type=None if step is None else step.label_type,
    )
    # A plan is for any machine: whether this one has the devices is asked by `admit`, for a load.
    cfg.n_devices = request.n_devices
    return cfg


def _with_context_length(
    weights: Weights, cfg: HookedTransformerConfig, n_ctx: int | None
) -> tuple[Weights, HookedTransformerConfig]:
    """Returns weights and config for a context length: a learned table is cut by a view, and cannot be lengthened."""
    if n_ctx is None or n_ctx == cfg.n_ctx:
        return weights, cfg
    table = weights.get("pos_embed.W_pos")
    if n_ctx > cfg.n_ctx:
        if table is not None:
            raise ValueError(f"n_ctx = {n_ctx}, and the checkpoint has learned {cfg.n_ctx} positions.")
        warnings.warn(
            f"n_ctx = {n_ctx} is more than the {cfg.n_ctx} tokens that the checkpoint was made for.", stacklevel=6
        )
    if table is not None:
        cut = table.view(lambda rows: rows[:n_ctx], (n_ctx, cfg.d_model), table.layout, f"first {n_ctx} rows")
        weights = weights.updated({"pos_embed.W_pos": cut})
    cfg.n_ctx = n_ctx
    return weights, cfg


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Notes the seconds that a stage takes."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
