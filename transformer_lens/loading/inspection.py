"""What a checkpoint holds, and what becomes of each tensor; also where no architecture of ours can take it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from transformer_lens.loading.checkpoint import open_checkpoint, read_config_json
from transformer_lens.loading.checkpoint.adapter import is_adapter, open_adapter
from transformer_lens.loading.checkpoint.gguf import tensors_of_gguf
from transformer_lens.loading.conversion.convert import collapse
from transformer_lens.loading.errors import LoadingError
from transformer_lens.loading.pretrained import Prepared, prepare, source_of
from transformer_lens.loading.report import gib
from transformer_lens.loading.request import Request
from transformer_lens.loading.sources import GGUFSource, Source
from transformer_lens.loading.weights import LazyTensor, Weights


@dataclass(frozen=True)
class Entry:
    """A tensor of a checkpoint.

    Attributes:
        key: Its name in the file.
        dtype: As the file has it; a packing by its name.
        shape: As the file has it.
        nbytes: Bytes in the file; of packed numbers, once unpacked.
        taken_by: Our parameters that read it, each with its axes.
        dropped: Why none does; empty where one does, or where nothing is known.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    taken_by: tuple[str, ...] = ()
    dropped: str = ""


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint holds.

    Attributes:
        label: What messages call it.
        kind: "folder", "hub", "gguf", "adapter".
        files: How files would be read, and why.
        architecture: The class whose table takes it; empty where none does.
        table: The file of that table.
        problem: Why it cannot be loaded as it was asked for; empty where it can.
        entries: Its tensors, in the order of the files.
        zero_filled: Our parameters that it has nothing for.
    """

    label: str
    kind: str
    files: str
    architecture: str
    table: str
    problem: str
    entries: tuple[Entry, ...]
    zero_filled: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.nbytes for entry in self.entries)

    def as_dict(self) -> dict[str, Any]:
        """Returns everything as data that JSON can hold."""
        return {**asdict(self), "nbytes": self.nbytes}

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Returns key, dtype, shape, bytes and fate; what is alike in all layers is one row: ``h.{0…11}.ln_1.bias``."""
        groups: dict[tuple[str, ...], list[Entry]] = {}
        for entry in self.entries:
            fate = "|".join(_without_number(name) for name in entry.taken_by) or entry.dropped
            groups.setdefault((_without_number(entry.key), entry.dtype, str(entry.shape), fate), []).append(entry)
        out: list[tuple[str, str, str, str, str]] = []
        for (_, dtype, shape, _), entries in groups.items():
            keys = _together(entry.key for entry in entries)
            taken = _together(name for entry in entries for name in entry.taken_by)
            fate = f"-> {taken}" if taken else f"dropped: {entries[0].dropped}" if entries[0].dropped else ""
            out.append((keys, dtype, shape, gib(sum(entry.nbytes for entry in entries)), fate))
        return out


def inspect_checkpoint(request: Request) -> Inspection:
    """Returns what a checkpoint holds; headers are read, tensors are not.

    What cannot be loaded is listed all the same, with the reason.

    Raises:
        LoadingError: It cannot even be opened.
    """
    request = replace(request, fetch="none")
    source = source_of(request)
    if not isinstance(source, GGUFSource) and is_adapter(source) and request.adapter is None:
        return _of_adapter(source)
    try:
        return _of_prepared(prepare(request))
    except LoadingError as error:
        # Whoever asks what is in a file that does not load wants to see it, and why.
        return _of_files(source, request, str(error))


def _of_prepared(prepared: Prepared) -> Inspection:
    readers: dict[str, list[str]] = {}
    for name, promise in prepared.converted.weights.items():
        for key in dict.fromkeys(_keys_of(promise)):
            readers.setdefault(key, []).append(f"{name} [{promise.layout}]")
    checkpoint, architecture = prepared.checkpoint, prepared.architecture
    return Inspection(
        checkpoint.label,
        checkpoint.kind,
        "" if checkpoint.io is None else f"{checkpoint.io.mode}: {checkpoint.io.reason}",
        architecture.name,
        architecture.file,
        "",
        tuple(_entries(checkpoint.weights, readers, prepared.converted.dropped)),
        prepared.converted.zero_filled,
    )


def _of_adapter(source: Source) -> Inspection:
    adapter = open_adapter(source, "map")
    base = adapter.base or "a model that it does not name"
    problem = f"An adapter holds no model: it changes {base}, into which it is merged where that is loaded."
    return Inspection(source.label, "adapter", "", "", "", problem, tuple(_entries(adapter.tensors, {}, {})))


def _of_files(source: Source, request: Request, problem: str) -> Inspection:
    if isinstance(source, GGUFSource):
        entries = tuple(Entry(*found) for found in tensors_of_gguf(source.path))
        return Inspection(source.label, source.kind, "", "", "", problem, entries)
    checkpoint = open_checkpoint(source, read_config_json(source), lambda key: False, request.io)
    return Inspection(
        source.label,
        source.kind,
        "" if checkpoint.io is None else f"{checkpoint.io.mode}: {checkpoint.io.reason}",
        "",
        "",
        problem,
        tuple(_entries(checkpoint.weights, {}, {})),
    )


def _entries(file: Weights, readers: Mapping[str, list[str]], dropped: Mapping[str, str]) -> Iterator[Entry]:
    for key, promise in file.items():
        unpacked = [step.removeprefix("unpacked from ") for step in promise.origin.steps if "unpacked" in step]
        dtype = unpacked[0] if unpacked else str(promise.dtype).removeprefix("torch.")
        taken = tuple(readers.get(promise.origin.key, ()))
        yield Entry(key, dtype, promise.shape, promise.nbytes, taken, dropped.get(key, ""))


def _keys_of(promise: LazyTensor) -> Iterator[str]:
    if promise.origin.key:
        yield promise.origin.key
    for source in promise.sources:
        yield from _keys_of(source)


def _without_number(name: str) -> str:
    return ".".join("#" if part.isdigit() else part for part in name.split("."))


def _together(names: Iterable[str]) -> str:
    return ", ".join(collapse(names, limit=10_000))
