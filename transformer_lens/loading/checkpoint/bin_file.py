"""``.bin`` checkpoints: zip archives of ``torch.save``, read as data.

The pickle inside is run by an unpickler that knows a handful of names, each of which makes a record and none of which
does anything. What comes out are records (storage, offset, size, stride), checked against the archive's entries; every
tensor is then a region of the file, mapped like one of safetensors. Code in a pickle is refused by
name, on every torch.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from transformer_lens.loading.checkpoint.regions import Region
from transformer_lens.loading.errors import CorruptCheckpointError
from transformer_lens.loading.sources.json_files import refuse_lfs_pointer
from transformer_lens.loading.weights import LazyTensor, element_size

_LARGEST_PICKLE = 64 << 20
_LARGEST_NUMEL = 1 << 48
_STORAGES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip


class StorageType(NamedTuple):
    """What ``torch.FloatStorage`` and the like stand for."""

    dtype: torch.dtype


class StorageRef(NamedTuple):
    """A storage that a pickle names: an entry of the archive."""

    dtype: torch.dtype
    key: str
    numel: int


class Record(NamedTuple):
    """A tensor that a pickle describes. Tuples hold no attributes that a pickle could change afterwards."""

    storage: StorageRef
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Record:
    return Record(storage, offset, tuple(size), tuple(stride))


def _rebuild_parameter(record: Any, *rest: Any) -> Any:
    return record


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): StorageType(dtype) for name, dtype in _STORAGES.items()},
}


class _RecordUnpickler(pickle._Unpickler):
    """Runs a pickle that may name nothing but what is known.

    The Python unpickler is taken on purpose: the C one allocates whatever memo index a pickle asks for.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise _Refused(f"its pickle names {module}.{name}, which is not data; it was not run")
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> StorageRef:
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage" and isinstance(pid[1], StorageType)):
            raise _Refused("its pickle refers to something else than a storage")
        if not isinstance(pid[2], str) or not isinstance(pid[4], int):
            raise _Refused("its pickle refers to a storage without name or size")
        return StorageRef(pid[1].dtype, pid[2], pid[4])


class _Refused(Exception):
    """The bare fact; the frame that knows the file adds the rest."""


def read_records(path: Path) -> Mapping[str, LazyTensor]:
    """Returns the tensors of a file, mapped when they are made.

    Raises:
        CorruptCheckpointError: The file is not whole, is of a form that cannot be read as data, or holds code.
    """
    try:
        return _read(path)
    except _Refused as fact:
        raise CorruptCheckpointError(f"{path}: {fact}.") from None


def _read(path: Path) -> Mapping[str, LazyTensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(200)
        refuse_lfs_pointer(path, start)
        if not start.startswith(b"PK\x03\x04"):
            raise _Refused(_what_else(path, start, size))
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
            raise _Refused(f"its {size} bytes are no whole zip archive ({error}): a download that stopped?") from None
        with archive:
            entries = _entries(archive)
            root = _root(entries)
            loaded = _unpickle(archive, entries[f"{root}/data.pkl"])
            if not isinstance(loaded, dict):
                raise _Refused(f"it holds a {type(loaded).__name__}, not a dict of tensors")
            starts: dict[str, int] = {}
            out: dict[str, LazyTensor] = {}
            for key, record in loaded.items():
                if not isinstance(key, str) or not isinstance(record, Record):
                    raise _Refused(f"{key!r} is a {type(record).__name__}, not a tensor: is it a training checkpoint?")
                entry = entries.get(f"{root}/data/{_storage_key(key, record)}")
                if entry is None:
                    raise _Refused(f"{key!r} lies in a storage that the archive does not hold")
                if entry.filename not in starts:
                    starts[entry.filename] = _data_start(file, entry, size)
                out[key] = _promise(path, key, record, entry, starts[entry.filename], size)
    return out


def _what_else(path: Path, start: bytes, size: int) -> str:
    if start[:1] == b"\x80" or b"ustar" in start:
        return (
            "it has the form that torch.save wrote before 1.6, which can only be read by running it. If you trust it, "
            f"convert it once:\n  python -c \"import torch; torch.save(torch.load('{path.name}', weights_only=True), "
            f"'{path.name}')\""
        )
    return f"its {size} bytes are no zip archive, which torch.save writes: is it a checkpoint?"


def _entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        if entry.filename in entries:
            raise _Refused(f"the archive holds {entry.filename!r} twice")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise _Refused(f"{entry.filename!r} is compressed, which torch.save never does")
        if entry.flag_bits & 1:
            raise _Refused(f"{entry.filename!r} is encrypted")
        entries[entry.filename] = entry
    return entries


def _root(entries: Mapping[str, zipfile.ZipInfo]) -> str:
    roots = {name.partition("/")[0] for name in entries}
    if len(roots) != 1:
        raise _Refused("the archive has not one folder, as torch.save writes it")
    root = roots.pop()
    if f"{root}/constants.pkl" in entries or any(name.startswith(f"{root}/code/") for name in entries):
        raise _Refused("it is a TorchScript program, not a dict of tensors; it was not run")
    if f"{root}/data.pkl" not in entries:
        raise _Refused("the archive has no data.pkl")
    return root


def _unpickle(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Any:
    if entry.file_size > _LARGEST_PICKLE:
        raise _Refused(f"its data.pkl has {entry.file_size} bytes; the description of a checkpoint is far smaller")
    try:
        text = archive.read(entry)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise _Refused(f"its data.pkl cannot be read ({error})") from None
    try:
        return _RecordUnpickler(io.BytesIO(text)).load()
    except _Refused:
        raise
    except Exception as error:
        # Anything at all can go wrong in a broken pickle; none of it has an effect.
        raise _Refused(f"its data.pkl is broken ({type(error).__name__}: {error})") from None


def _storage_key(key: str, record: Record) -> str:
    storage = record.storage
    numbers = (record.offset, storage.numel if isinstance(storage, StorageRef) else None, *record.size, *record.stride)
    sane = all(isinstance(number, int) and 0 <= number < _LARGEST_NUMEL for number in numbers)
    if not isinstance(storage, StorageRef) or not sane or len(record.size) != len(record.stride):
        raise _Refused(f"{key!r} is described by numbers that make no sense")
    return storage.key


def _data_start(file: Any, entry: zipfile.ZipInfo, size: int) -> int:
    """Returns where an entry's bytes begin: behind its local header, which says how long it is."""
    file.seek(entry.header_offset)
    header = file.read(30)
    if len(header) != 30 or header[:4] != b"PK\x03\x04":
        raise _Refused(f"{entry.filename!r} is not where the archive says")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    start = int(entry.header_offset + 30 + name_length + extra_length)
    if start + entry.file_size > size:
        raise _Refused(f"{entry.filename!r} ends behind the end of the file: a download that stopped?")
    return start


def _promise(path: Path, key: str, record: Record, entry: zipfile.ZipInfo, start: int, file_size: int) -> LazyTensor:
    storage, itemsize = record.storage, element_size(record.storage.dtype)
    if storage.numel * itemsize != entry.file_size:
        raise _Refused(
            f"{key!r} lies in a storage of {storage.numel} elements ({storage.numel * itemsize} bytes), "
            f"the archive holds {entry.file_size} bytes of it"
        )
    numel = 1
    for length in record.size:
        numel *= length
    extent = 0
    if numel:
        extent = 1 + sum((length - 1) * step for length, step in zip(record.size, record.stride))
    if record.offset + extent > storage.numel:
        raise _Refused(f"{key!r} reaches {record.offset + extent} elements into a storage of {storage.numel}")
    if numel > extent:
        raise _Refused(f"{key!r} has {numel} elements over {extent} of its storage: it overlaps itself")
    region = Region(path, start + record.offset * itemsize, (extent,), storage.dtype, file_size)
    promise = region.promise(key, "map")
    flat = promise.make

    def make() -> Tensor:
        return flat().as_strided(record.size, record.stride) if numel else flat().view(record.size)

    return replace(promise, shape=tuple(record.size), make=make)
