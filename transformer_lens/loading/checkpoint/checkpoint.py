"""A checkpoint: its config as parsed, and its tensors as promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from transformer_lens.loading.checkpoint import bin_file, safetensors
from transformer_lens.loading.checkpoint.io import IOChoice, choose_io
from transformer_lens.loading.checkpoint.regions import Region
from transformer_lens.loading.errors import CorruptCheckpointError
from transformer_lens.loading.sources.json_files import read_json
from transformer_lens.loading.sources.source import FolderSource, Source
from transformer_lens.loading.weights import LazyTensor, Weights

Skip = Callable[[str], bool]
_FORMATS = (
    ("model.safetensors.index.json", "model.safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model.bin"),
)


@dataclass(frozen=True)
class Checkpoint:
    """What a load starts from.

    Attributes:
        label: What messages call it.
        kind: "folder", "hub", "gguf" or "live model".
        revision: The hub's revision, if there is one.
        config: config.json as parsed.
        weights: Promises by the names that files have.
        io: How files are read, and why.
    """

    label: str
    kind: str
    revision: str | None
    config: Mapping[str, Any]
    weights: Weights
    io: IOChoice | None = None


def read_config_json(source: Source) -> dict[str, Any]:
    """Returns a source's config.json.

    Raises:
        CorruptCheckpointError: It is missing or broken.
    """
    return read_json(source.file("config.json"))


def open_checkpoint(source: Source, config: Mapping[str, Any], skip: Skip, io: str = "auto") -> Checkpoint:
    """Returns the checkpoint of a folder or a repository: headers are read, tensors are not.

    Args:
        source: Where the files are.
        config: Its config.json.
        skip: True for keys that are not wanted; shards that hold only such are neither opened nor fetched.
        io: "auto", "map" or "read".

    Raises:
        CorruptCheckpointError: There are no weights, a shard is missing, or a file is broken.
    """
    for index_name, single_name in _FORMATS:
        path = source.find(index_name)
        if path is not None:
            shards = wanted_shards(path, skip)
            return _checkpoint(source, config, [(source.file(name), keys) for name, keys in shards.items()], skip, io)
        path = source.find(single_name)
        if path is not None:
            return _checkpoint(source, config, [(path, None)], skip, io)
    looked = ", ".join(name for index, single in _FORMATS for name in (single, index))
    raise CorruptCheckpointError(
        f"{source.label} holds no weights: looked for {looked}.\n  {source.listing()}\n  is the download complete?"
    )


def wanted_shards(index: Path, skip: Skip) -> dict[str, list[str]]:
    """Returns the shards that hold wanted keys, each with those keys.

    Raises:
        CorruptCheckpointError: The index is broken, or names a file outside its folder.
    """
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CorruptCheckpointError(f"{index} has no weight_map, which says where each tensor is.")
    shards: dict[str, list[str]] = {}
    for key, name in weight_map.items():
        if not isinstance(name, str) or not _stays_inside(name):
            raise CorruptCheckpointError(
                f"{index} puts {key!r} into {name!r}: not the name of a file in its own folder. It was not opened."
            )
        if not skip(key):
            shards.setdefault(name, []).append(key)
    return shards


def _stays_inside(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return len(parts) == 1 and parts[0] not in ("..", ".", "/") and ":" not in name and "\0" not in name


def _checkpoint(
    source: Source, config: Mapping[str, Any], files: list[tuple[Path, list[str] | None]], skip: Skip, io: str
) -> Checkpoint:
    choice = choose_io(io, files[0][0] if files else Path())
    weights: dict[str, LazyTensor] = {}
    for path, keys in files:
        if isinstance(source, FolderSource):
            _refuse_link_outside(path, source.folder)
        regions = _tensors_of(path)
        for key in keys or ():
            if key not in regions:
                raise CorruptCheckpointError(
                    f"{path.name} lacks {key!r}, which the index of {source.label} says is there."
                )
        for key, promise in regions.items():
            if skip(key):
                continue
            if key in weights:
                raise CorruptCheckpointError(f"{source.label} holds {key!r} in two shards.")
            weights[key] = promise.promise(key, choice.mode) if isinstance(promise, Region) else promise
    return Checkpoint(source.label, source.kind, source.revision, config, Weights(weights), choice)


def _tensors_of(path: Path) -> Mapping[str, Region | LazyTensor]:
    return bin_file.read_records(path) if path.suffix == ".bin" else safetensors.read_header(path)


def _refuse_link_outside(path: Path, folder: Path) -> None:
    """Raises for a shard of a plain folder that is a link to somewhere else; the hub's cache links to its blobs."""
    if not path.is_symlink():
        return
    real, home = path.resolve(), folder.resolve()
    in_hub_cache = folder.resolve().parent.name == "snapshots" and real.parent.name == "blobs"
    if not in_hub_cache and home not in real.parents:
        raise CorruptCheckpointError(f"{path} is a link to {real}, outside its folder. It was not opened.")
