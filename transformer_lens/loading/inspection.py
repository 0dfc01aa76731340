"""What a checkpoint holds, and what becomes of each tensor; also where no architecture of ours can take it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from transformer_lens.loading.checkpoint import open_checkpoint, read_config_json
from transformer_lens.loading.checkpoint.adapter import Holds, adapter_config_of, adapters_in, tensors_of
from transformer_lens.loading.checkpoint.gguf import tensors_of_gguf
from transformer_lens.loading.checkpoint.gguf_families import FREQUENCIES
from transformer_lens.loading.conversion.convert import collapse
from transformer_lens.loading.errors import LoadingError
from transformer_lens.loading.pretrained import Prepared, prepare, source_of
from transformer_lens.loading.report import as_html, gib, shortened
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
        nbytes: Bytes in the file, packed where it is packed there.
        taken_by: Our parameters that read it, each with its axes.
        dropped: Why none does; empty where one does, or where nothing is known.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    taken_by: tuple[str, ...] = ()
    dropped: str = ""


@dataclass(frozen=True, repr=False)
class Inspection:
    """What a checkpoint holds. ``print(inspection)`` lists it; its repr is a line.

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

    def __repr__(self) -> str:
        taken = self.architecture or "no table takes it"
        found = f"{len(self.entries)} tensors, {gib(self.nbytes)}, {taken}"
        return f"<Inspection of {shortened(self.label)} ({self.kind}): {found}; print it for more>"

    def _repr_html_(self) -> str:
        return as_html(repr(self), str(self))

    def __str__(self) -> str:
        rows = self.rows()
        widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
        lines = [f"{self.label} ({self.kind}): {len(self.entries)} tensors, {gib(self.nbytes)}"]
        if self.files:
            lines.append(f"  files: {self.files}")
        if self.architecture:
            lines.append(f"  {self.architecture}, by the table {self.table}")
        else:
            lines.append("  no table of ours takes it:\n    " + self.problem.replace("\n", "\n    "))
        lines += ["  ".join([*map(str.ljust, row[:4], widths), row[4]]).rstrip() for row in rows]
        if self.zero_filled:
            lines.append(f"  zero-filled, the file has nothing for: {', '.join(collapse(self.zero_filled))}")
        return "\n".join(lines)

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
    if not isinstance(source, GGUFSource) and request.adapter is None and adapters_in(source) is Holds.ADAPTER:
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
    entries = list(_entries(checkpoint.weights, readers, prepared.converted.dropped))
    if isinstance(prepared.source, GGUFSource):
        # The converter keeps a part of the config as tensors.
        found = (Entry(*one) for one in tensors_of_gguf(prepared.source.path) if one[0] in FREQUENCIES)
        entries += [replace(entry, taken_by=("rotary frequencies",)) for entry in found]
    return Inspection(
        checkpoint.label,
        checkpoint.kind,
        "" if checkpoint.io is None else f"{checkpoint.io.mode}: {checkpoint.io.reason}",
        architecture.name,
        architecture.file,
        "",
        tuple(entries),
        prepared.converted.zero_filled,
    )


def _of_adapter(source: Source) -> Inspection:
    said = adapter_config_of(source).get("base_model_name_or_path")
    base = said if isinstance(said, str) and said else "a model that it does not name"
    problem = f"An adapter holds no model: it changes {base}, into which it is merged where that is loaded."
    tensors, _ = tensors_of(source, "map")
    return Inspection(source.label, "adapter", "", "", "", problem, tuple(_entries(tensors, {}, {})))


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
        packed = [step.removeprefix("unpacked from ") for step in promise.origin.steps if "unpacked" in step]
        if promise.packed is not None:
            packed = [promise.packed.kind]
        dtype = packed[0] if packed else str(promise.dtype).removeprefix("torch.")
        taken = tuple(readers.get(promise.origin.key, ()))
        span = promise.origin.span
        nbytes = promise.nbytes if promise.packed is not None or span is None else span.nbytes
        yield Entry(key, dtype, promise.shape, nbytes, taken, dropped.get(key, ""))


def _keys_of(promise: LazyTensor) -> Iterator[str]:
    if promise.origin.key:
        yield promise.origin.key
    for source in promise.sources:
        yield from _keys_of(source)


def _without_number(name: str) -> str:
    return ".".join("#" if part.isdigit() else part for part in name.split("."))


def _together(names: Iterable[str]) -> str:
    return ", ".join(collapse(names, limit=10_000))
