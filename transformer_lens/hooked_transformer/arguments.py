"""The arguments of ``from_pretrained``, checked, and which of them the caller has named."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch

from transformer_lens import loading

P = ParamSpec("P")
T = TypeVar("T")
# Arguments that the caller of from_pretrained has named, rather than left at their defaults.
named: ContextVar[frozenset[str]] = ContextVar("named_arguments", default=frozenset())


# Names of the arguments of from_pretrained.
ARGUMENTS = (
    *(field.name for field in dataclasses.fields(loading.Request) if field.name not in ("flags", "fetch", "quantize")),
    *(field.name for field in dataclasses.fields(loading.Flags) if field.name != "explicit"),
    *("checkpoint_label", "tokenizer", "move_to_device", "default_padding_side", "quantization_config"),
    *("load_in_4bit", "load_in_8bit", "torch_dtype"),
)


def noting_what_is_named(function: Callable[P, T]) -> Callable[P, T]:
    """Lets a function know which of its arguments were given."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def noting(*args: P.args, **kwargs: P.kwargs) -> T:
        token = named.set(frozenset(signature.bind_partial(*args, **kwargs).arguments))
        try:
            return function(*args, **kwargs)
        finally:
            named.reset(token)

    return noting


def checked_request(
    others: dict[str, Any],
    *,
    model_name: str | Path | None,
    fold_ln: bool,
    center_writing_weights: bool,
    center_unembed: bool,
    refactor_factored_attn_matrices: bool,
    checkpoint_index: int | None,
    checkpoint_value: int | None,
    checkpoint_label: int | str | None,
    hf_model: Any,
    device: str | torch.device | None,
    n_devices: int,
    move_to_device: bool,
    fold_value_biases: bool,
    default_prepend_bos: bool | None,
    dtype: str | torch.dtype,
    first_n_layers: int | None,
    n_ctx: int | None,
    load_mode: str,
    io: str,
    revision: str | None,
    subfolder: str | None,
    token: str | bool | None,
    cache_dir: str | Path | None,
    local_files_only: bool,
    trust_remote_code: bool,
    adapter: str | Path | None,
    check_memory: bool,
    progress: bool | None,
    quantization_config: Any,
    load_in_4bit: bool | None,
    load_in_8bit: bool | None,
    dequantize: bool,
    cache_processed: bool | None,
) -> loading.Request:
    """Returns the arguments of ``from_pretrained``, checked; `others` are those that it takes by any name."""
    torch_dtype = others.pop("torch_dtype", None)
    if torch_dtype is not None:
        wanted = loading.requested_dtype(torch_dtype)
        if loading.requested_dtype(dtype) not in (torch.float32, wanted):
            raise ValueError(f"dtype = {dtype!r} and torch_dtype = {torch_dtype!r} mean the same and differ.")
        dtype = torch_dtype
    loading.refuse_unknown_arguments(others, ARGUMENTS)
    return loading.Request(
        model_name=None if model_name is None else str(model_name),
        hf_model=hf_model,
        flags=loading.Flags(
            fold_ln=fold_ln,
            center_writing_weights=center_writing_weights,
            center_unembed=center_unembed,
            fold_value_biases=fold_value_biases,
            refactor_factored_attn_matrices=refactor_factored_attn_matrices,
            explicit=named.get(),
        ),
        checkpoint_index=checkpoint_index,
        checkpoint_value=loading.one_of(checkpoint_value, checkpoint_label),
        device=device if move_to_device else "cpu",
        n_devices=n_devices,
        default_prepend_bos=default_prepend_bos,
        dtype=loading.requested_dtype(dtype),
        first_n_layers=first_n_layers,
        n_ctx=n_ctx,
        load_mode=load_mode,
        io=io,
        revision=revision,
        subfolder=subfolder,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        trust_remote_code=trust_remote_code,
        adapter=None if adapter is None else str(adapter),
        check_memory=check_memory,
        progress=progress,
        quantize=loading.requested_quantization(quantization_config, load_in_4bit, load_in_8bit),
        dequantize=dequantize,
        cache_processed=cache_processed,
    )
