"""LoRA adapters in files: their headers are read, and what they change is promised anew.

Nothing of an adapter is taken on trust: each tensor is one that the config speaks of, of the shape that the base's
tensor and the rank ask for, and each that the config speaks of is there. What no adapter touches stays the promise
that it was, and no file or model is written to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch

from transformer_lens.loading.checkpoint import safetensors
from transformer_lens.loading.checkpoint.adapter_config import AdapterConfig, read_adapter_config
from transformer_lens.loading.checkpoint.bin_file import read_records
from transformer_lens.loading.errors import CorruptCheckpointError, UnexpectedTensorError
from transformer_lens.loading.sources.json_files import read_json
from transformer_lens.loading.sources.source import Source
from transformer_lens.loading.weights import LazyTensor, Weights

_ROOT = "base_model.model."
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_NUMBERS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class Adapter:
    """An adapter's config and tensors.

    Attributes:
        config: Its settings, checked.
        tensors: By the names in its file, without their common start.
        files: Its config and its weights.
    """

    config: AdapterConfig
    tensors: Weights
    files: tuple[Path, ...] = ()

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.config.label

    @property
    def base(self) -> str | None:
        """Name of the model that it was made for."""
        return self.config.base


class Holds(Enum):
    """What a source holds of adapters."""

    NOTHING = "no adapter"
    ADAPTER = "an adapter, and no weights of a whole model"
    BOTH = "an adapter beside a whole model"


def adapters_in(source: Source) -> Holds:
    """Returns what a source holds of adapters; asks for a single file where there is none."""
    if source.find("adapter_config.json") is None:
        return Holds.NOTHING
    if source.find("config.json") is None or not _has_model(source):
        return Holds.ADAPTER
    # A config alone is left behind by tools that merge; what it spoke of is gone.
    return Holds.BOTH if any(source.find(name) is not None for name in _WEIGHTS) else Holds.NOTHING


def _has_model(source: Source) -> bool:
    names = ("model.safetensors.index.json", "pytorch_model.bin.index.json", "model.safetensors", "pytorch_model.bin")
    return any(source.find(name) is not None or source.header(name) is not None for name in names)


def adapter_config_of(source: Source) -> Mapping[str, Any]:
    """Returns an adapter's config as parsed.

    Raises:
        CorruptCheckpointError: It is missing or broken.
    """
    return read_json(source.file("adapter_config.json"))


def tensors_of(source: Source, io: str) -> tuple[Weights, Path]:
    """Returns an adapter's tensors by the names in its file, without their common start, and that file.

    Raises:
        CorruptCheckpointError: The file is missing or broken, or has one name twice.
    """
    path = source.find(_WEIGHTS[0])
    if path is not None:
        found = {key: region.promise(key, io) for key, region in safetensors.read_header(path).items()}
    else:
        path = source.file(_WEIGHTS[1])
        found = dict(read_records(path))
    names: dict[str, LazyTensor] = {}
    for key, tensor in found.items():
        name = key.removeprefix(_ROOT)
        if name in names:
            raise CorruptCheckpointError(f"{path} holds {name!r} twice, with and without {_ROOT!r}.")
        names[name] = tensor
    return Weights(names), path


def open_adapter(source: Source, io: str) -> Adapter:
    """Reads an adapter's config and headers.

    Raises:
        UnhandledConfigError: It is no LoRA adapter, or has settings that are not known here.
        CorruptCheckpointError: A file is missing or broken.
        UnexpectedTensorError: It holds what is no number, or nothing.
    """
    config = read_adapter_config(adapter_config_of(source), source.label)
    tensors, path = tensors_of(source, io)
    if not tensors:
        raise UnexpectedTensorError(f"{source.label} is an adapter without tensors: {path.name} is empty.")
    strange = [name for name, tensor in tensors.items() if tensor.dtype not in _NUMBERS]
    if strange:
        raise UnexpectedTensorError(
            f"{strange[0]!r} of {source.label} is in {str(tensors[strange[0]].dtype)[6:]}; factors of an adapter are "
            "in float16, bfloat16, float32 or float64."
        )
    return Adapter(config, tensors, (source.file("adapter_config.json"), path))
