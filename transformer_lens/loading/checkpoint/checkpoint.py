"""A checkpoint: its config as parsed, and its tensors as promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from transformer_lens.loading.checkpoint import bin_file, safetensors
from transformer_lens.loading.checkpoint.io import IOChoice, choose_io
from transformer_lens.loading.errors import CorruptCheckpointError
from transformer_lens.loading.sources.json_files import read_json
from transformer_lens.loading.sources.source import Source
from transformer_lens.loading.sources.whole_files import fetch_again
from transformer_lens.loading.weights import LazyTensor, Weights

Skip = Callable[[str], bool]
Header = dict[str, Any]
# Where a file is, its header where it is not here, and the keys that are wanted of it (None: all).
File = tuple[Path, Header | None, list[str] | None]
_LONGEST_FILE_NAME = 255
_FORMATS = (
    ("model.safetensors.index.json", "model.safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model.bin"),
)


# How the name of the one file ends that upstream's own models have.
_FINAL = "final.pth"


@dataclass(frozen=True)
class Merge:
    """What adapters have done to one tensor of a checkpoint.

    Attributes:
        what: In words.
        dtype: That the tensor had before.
    """

    what: str
    dtype: torch.dtype


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
        remote: Files that are not here, of which the headers are known: no promise of theirs can be kept.
        links: Files that are links out of their folder, each with the path that it leads to.
        files: Every file that the weights depend on, but for config.json; none for a live model.
        adapters: Names of the adapters in files that are merged.
        merged: What adapters, in files or live, have done to which tensors.
    """

    label: str
    kind: str
    revision: str | None
    config: Mapping[str, Any]
    weights: Weights
    io: IOChoice | None = None
    remote: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    adapters: tuple[str, ...] = ()
    merged: Mapping[str, Merge] = field(default_factory=dict)

    def dtype_of(self, promise: LazyTensor) -> torch.dtype:
        """Returns the dtype in which the base has a tensor: what an adapter has changed is wider until it is cast."""
        merge = self.merged.get(promise.origin.key)
        return promise.dtype if merge is None else merge.dtype


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
    if source.weights is not None:
        return _checkpoint(source, config, [(source.file(source.weights), None, None)], skip, io)
    for index_name, single_name in _FORMATS:
        path = source.find(index_name)
        if path is not None:
            shards = wanted_shards(path, skip)
            return _checkpoint(source, config, _found(source, path, shards), skip, io, path)
        located = _located(source, single_name)
        if located is not None:
            return _checkpoint(source, config, [(*located, None)], skip, io)
    finals = [name for name in source.names() if name.endswith(_FINAL) and "/" not in name]
    if len(finals) == 1:
        return _checkpoint(source, config, [(source.file(finals[0]), None, None)], skip, io)
    if finals:
        raise CorruptCheckpointError(f"{source.label} holds {' and '.join(finals)}: which one is the model?")
    looked = ", ".join((*(name for index, single in _FORMATS for name in (single, index)), f"*{_FINAL}"))
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
        if not isinstance(name, str) or not _is_file_name(name):
            raise CorruptCheckpointError(
                f"{index} puts {key[:200]!r} into {str(name)[:200]!r}: not the name of a file in its own folder. "
                "It was not opened."
            )
        if not skip(key):
            shards.setdefault(name, []).append(key)
    return shards


def _located(source: Source, name: str) -> tuple[Path, Header | None] | None:
    """Returns the path of a file of weights, or its header where the file stays where it is; None where it is not."""
    path = source.find(name)
    if path is not None:
        return path, None
    header = source.header(name)
    return None if header is None else (Path(name), header)


def _found(source: Source, index: Path, shards: Mapping[str, list[str]]) -> list[File]:
    """Returns the files of shards, each with the keys that are wanted of it."""
    found: list[File] = []
    missing: list[str] = []
    for name, keys in shards.items():
        located = _located(source, name)
        if located is None:
            missing.append(name)
        else:
            found.append((*located, keys))
    if missing:
        keys = shards[missing[0]]
        raise CorruptCheckpointError(
            f"{source.label} lacks {len(missing)} of the {len(shards)} files that are needed: {', '.join(missing[:4])}"
            + (" …" if len(missing) > 4 else "")
            + f"\n  {index.name} puts {len(keys)} tensors into the first ({keys[0]}, …).\n  {source.listing()}\n"
            f"  is the download complete? {fetch_again(index.with_name(missing[0]))}."
        )
    return found


def _is_file_name(name: str) -> bool:
    """Whether text can be the name of a file, on every system, and of one in the folder that it stands in."""
    if not name.isprintable() or any(letter in '/\\:*?"<>|' for letter in name) or name.strip(". ") == "":
        return False
    return len(name.encode("utf-8")) <= _LONGEST_FILE_NAME


def _checkpoint(
    source: Source, config: Mapping[str, Any], files: list[File], skip: Skip, io: str, index: Path | None = None
) -> Checkpoint:
    choice = choose_io(io, files[0][0] if files else Path())
    weights: dict[str, LazyTensor] = {}
    for path, header, keys in files:
        promises = _promises_of(path, header, choice.mode)
        for key in keys or ():
            if key not in promises:
                raise CorruptCheckpointError(
                    f"{path.name} lacks {key!r}, which the index of {source.label} says is there."
                )
        for key, promise in promises.items():
            if skip(key):
                continue
            if key in weights:
                raise CorruptCheckpointError(f"{source.label} holds {key!r} in two shards.")
            weights[key] = promise
    remote = tuple(path.name for path, header, _ in files if header is not None)
    opened = (*(() if index is None else (index,)), *(path for path, _, _ in files))
    return Checkpoint(
        source.label, source.kind, source.revision, config, Weights(weights), choice, remote, source.links, opened
    )


def _promises_of(path: Path, header: Header | None, io: str) -> Mapping[str, LazyTensor]:
    if path.suffix in (".bin", ".pth"):
        return bin_file.read_records(path, io)
    regions = safetensors.read_header(path) if header is None else safetensors.regions_of(path, header)
    return {key: region.promise(key, io) for key, region in regions.items()}
