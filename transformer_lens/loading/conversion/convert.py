"""Reads a table: turns the tensors of a file into our parameters, by views."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from transformer_lens.anatomy import schema
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.reading import Reader
from transformer_lens.loading.errors import (
    LayoutMismatchError,
    MissingTensorError,
    QuantizedTensorError,
    UnexpectedTensorError,
)
from transformer_lens.loading.weights import LazyTensor, Weights

_NUMBER = re.compile(r"(?<=\.)\d{1,9}(?=\.)")
# What a weight's numbers may be. A float8 has 256 values: its numbers mean something only with their scales.
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Converted:
    """The result of a conversion.

    Attributes:
        weights: In our names, order and axes.
        used: Keys of the file that some parameter reads.
        dropped: Keys that none reads, each with the reason.
        zero_filled: Our names that the file has nothing for.
        tied: Our names that read the same tensor as another: (name, the other).
        unpacked: Our names that are numbers though the file's tensor is packed, each with the reason.
    """

    weights: Weights
    used: tuple[str, ...]
    dropped: Mapping[str, str]
    zero_filled: tuple[str, ...]
    tied: tuple[tuple[str, str], ...]
    unpacked: Mapping[str, str] = field(default_factory=dict)


def refuse_all_but_floats(weights: Mapping[str, LazyTensor], label: str) -> None:
    """Raises for weights that are stored as integers, bools or float8, and are not packed in a way that is known.

    Args:
        weights: Those that are read as weights.
        label: Names the checkpoint in messages.

    Raises:
        QuantizedTensorError: There are such; all are named at once, layers together.
    """
    strange: dict[torch.dtype, list[str]] = {}
    for key, tensor in weights.items():
        if tensor.packed is None and tensor.dtype not in _FLOATS:
            strange.setdefault(tensor.dtype, []).append(key)
    if strange:
        lines = [f"  {line}  {str(dtype)[6:]}" for dtype, keys in strange.items() for line in collapse(keys)]
        raise QuantizedTensorError(
            f"{label} stores weights in a dtype that is none of float64, float32, float16 and bfloat16:\n"
            + "\n".join(lines)
            + "\n  Packed numbers (float8, int8 …) mean something only with their scales, by a method that "
            "quantization_config in config.json names: is it gone?\n  Load an unpacked checkpoint of the model, or "
            "look at what has written this one."
        )


def refuse_more_layers(
    keys: Iterable[str], architecture: Architecture, n_layers: int, label: str, config: Mapping[str, Any]
) -> None:
    """Raises for tensors of more layers than there are by the config.

    Args:
        keys: Of the checkpoint, without those of layers that were not asked for.
        architecture: Its table.
        n_layers: Layers by the config.
        label: Names the checkpoint in messages.
        config: The parsed config.json, which tells layers that predict tokens further ahead from others.

    Raises:
        UnexpectedTensorError: There are such; all are named at once.
    """
    beyond = architecture.beyond(n_layers)
    is_ahead = architecture.is_ahead(config)
    more = [key for key in keys if beyond(key) and not is_ahead(key)]
    if more:
        raise UnexpectedTensorError(
            f"{label} holds more layers than the {n_layers} of its {architecture.said_by}:\n"
            + "\n".join(f"  {line}" for line in collapse(more))
            + "\n  are these files of one checkpoint? first_n_layers=... loads the first layers of a whole one."
        )


def _unread(
    file: Weights,
    reader: Reader,
    architecture: Architecture,
    n_layers: int,
    label: str,
    is_ahead: Callable[[str], bool],
) -> dict[str, str]:
    """Returns the keys that no parameter reads, each with the reason.

    Raises:
        UnexpectedTensorError: There is no reason for some.
    """
    templates: dict[str, str] = {}
    for template, reason in architecture.dropped.items():
        keys = [template.replace("{i}", str(layer)) for layer in range(n_layers)] if "{i}" in template else [template]
        templates |= {reader.key(key): reason for key in keys}
    dropped: dict[str, str] = {}
    strange: list[str] = []
    for key in file:
        if key in reader.used:
            continue
        if key in templates:
            dropped[key] = templates[key]
        elif is_ahead(key):
            dropped[key] = "of a layer that predicts tokens further ahead"
        elif (part := next((part for part in architecture.dropped_parts if key.startswith(part)), None)) is not None:
            dropped[key] = architecture.dropped_parts[part]
        else:
            strange.append(key)
    if strange:
        raise UnexpectedTensorError(
            f"{label} holds tensors that {architecture.name} has no place for:\n"
            + "\n".join(f"  {line}" for line in collapse(strange))
            + f"\n  the table is {architecture.file}; does {architecture.said_by} belong to "
            "these weights (a bias that it switches off, another architecture)?"
        )
    return dropped


def convert(
    file: Weights,
    architecture: Architecture,
    cfg: HookedTransformerConfig,
    config: Mapping[str, Any],
    label: str,
) -> Converted:
    """Turns the tensors of a file into our parameters; nothing is read.

    Args:
        file: Promises by the names in the file.
        architecture: Its table.
        cfg: The config of the model to be.
        config: The parsed config.json.
        label: Names the checkpoint in messages.

    Raises:
        MissingTensorError: The file lacks tensors; all are named at once, layers together.
        LayoutMismatchError: Tensors have other shapes than their layouts say.
        UnexpectedTensorError: The file holds tensors that nothing reads and nobody drops by name, or more layers than
            `cfg`.
        QuantizedTensorError: Tensors are no floats, and packed in no way that is known.
    """
    refuse_more_layers(file, architecture, cfg.n_layers, label, config)
    reader = Reader(file, architecture, cfg, config, label)
    out: dict[str, LazyTensor] = {}
    for name, axes in schema(cfg).items():
        promise = reader.parameter(name, axes)
        if promise is not None:
            out[name] = promise
    if reader.missing:
        raise MissingTensorError(
            f"{label} lacks tensors that its {architecture.said_by} asks for:\n"
            + "\n".join(f"  {line}" for line in collapse(reader.missing))
            + f"\n  the table is {architecture.file}; is the download complete?"
        )
    if reader.mismatched:
        raise LayoutMismatchError(_alike(reader.mismatched))
    refuse_all_but_floats({key: file[key] for key in reader.used if key not in reader.packed_parts}, label)
    dropped = _unread(file, reader, architecture, cfg.n_layers, label, architecture.is_ahead(config))
    return Converted(
        Weights(out), tuple(reader.used), dropped, tuple(reader.zero_filled), tuple(reader.tied), reader.unpacked
    )


def _alike(mismatched: Mapping[str, str], limit: int = 4) -> str:
    """Returns the first of each kind of mismatch, and the keys of all layers that it stands for."""
    kinds: dict[str, list[str]] = {}
    for key in mismatched:
        kinds.setdefault(_NUMBER.sub("#", key), []).append(key)
    lines: list[str] = []
    for keys in list(kinds.values())[:limit]:
        lines.append(mismatched[keys[0]])
        if len(keys) > 1:
            lines.append(f"  alike:     {', '.join(collapse(keys))}")
    if len(kinds) > limit:
        lines.append("and " + ", ".join(collapse(key for keys in list(kinds.values())[limit:] for key in keys)))
    return "\n".join(lines)


def collapse(names: Iterable[str], limit: int = 12) -> list[str]:
    """Returns names with the same words and different numbers as one: ``h.{0…11}.attn.bias``."""
    groups: dict[str, list[int]] = {}
    for name in dict.fromkeys(names):
        found = _NUMBER.search(name)
        template = name if found is None else f"{name[: found.start()]}#{name[found.end() :]}"
        groups.setdefault(template, []).extend([] if found is None else [int(found.group())])
    lines = []
    for template, numbers in groups.items():
        if not numbers:
            lines.append(template)
        elif len(numbers) == 1:
            lines.append(template.replace("#", str(numbers[0])))
        else:
            whole = sorted(numbers) == list(range(min(numbers), max(numbers) + 1))
            inside = f"{min(numbers)}…{max(numbers)}" if whole else ",".join(map(str, sorted(numbers)))
            lines.append(template.replace("#", "{" + inside + "}"))
    return lines if len(lines) <= limit else [*lines[:limit], f"… and {len(lines) - limit} more"]
