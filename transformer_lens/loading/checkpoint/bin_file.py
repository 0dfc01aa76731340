"""``.bin`` checkpoints: zip archives of ``torch.save``, read as data.

The pickle inside is run by a reader that knows a handful of names, each of which makes a record and none of which
does anything. What comes out are records (storage, offset, size, stride), checked against the archive's entries; every
tensor is then a region of the file, mapped like one of safetensors. Code in a pickle is refused by
name, on every torch.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO

from transformer_lens.loading.checkpoint.records import Record, Refused, StorageRef, read_description
from transformer_lens.loading.checkpoint.regions import Region
from transformer_lens.loading.errors import CorruptCheckpointError
from transformer_lens.loading.sources.whole_files import fetch_again, refuse_lfs_pointer
from transformer_lens.loading.weights import LazyTensor, element_size

# A few times what the pickle of thirty thousand tensors has; text may take four times its bytes in memory.
_LARGEST_PICKLE = 16 << 20
# Of an archive's directory, which has a hundred bytes an entry.
_LARGEST_PIECE = 4 << 20
_MOST_TENSORS = 1 << 16
_LONGEST_NAME = 1024
_PIECE = 1 << 20
_LARGEST_NUMEL = 1 << 48
_MOST_AXES = 64
_TRUNCATED = "a download that stopped?"


def read_records(path: Path, io: str = "map") -> Mapping[str, LazyTensor]:
    """Returns the tensors of a file as promises.

    Args:
        path: The file.
        io: "map" or "read".

    Raises:
        CorruptCheckpointError: The file is not whole, is of a form that cannot be read as data, or holds code.
    """
    with _told_of(path):
        archive = _open(path)
        return {key: region.promise(key, io) for key, region in _regions(archive, archive.loaded).items()}


def read_nested(
    path: Path, names: Collection[str], io: str = "map"
) -> tuple[Mapping[str, LazyTensor], Mapping[str, Any]]:
    """Returns the tensors of a training checkpoint as promises, and what stands beside them.

    Args:
        path: The file.
        names: What its state dict may be called; a file that has none of them is a state dict itself.
        io: "map" or "read".

    Raises:
        CorruptCheckpointError: The file is not whole, is of a form that cannot be read as data, or holds code.
    """
    with _told_of(path):
        archive = _open(path)
        inside = [name for name in names if isinstance(archive.loaded.get(name), dict)]
        if len(inside) > 1:
            raise Refused(f"it holds {' and '.join(map(repr, inside))}: which one is the state dict?")
        tensors = archive.loaded[inside[0]] if inside else archive.loaded
        beside = {key: value for key, value in archive.loaded.items() if key not in inside} if inside else {}
        return {key: region.promise(key, io) for key, region in _regions(archive, tensors).items()}, beside


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """Says of what file a fact is."""
    try:
        yield
    except Refused as fact:
        hint = f"\n  {fetch_again(path)}." if _TRUNCATED in str(fact) else ""
        raise CorruptCheckpointError(f"{path}: {fact}{'' if str(fact).endswith('?') else '.'}{hint}") from None


@dataclass(frozen=True)
class _Archive:
    """An archive whose pickle has been run as a description.

    Attributes:
        path: The file.
        size: Its bytes.
        root: Name of its one folder.
        entries: By name.
        starts: First byte of each entry.
        loaded: What the pickle describes: a dict.
    """

    path: Path
    size: int
    root: str
    entries: Mapping[str, zipfile.ZipInfo]
    starts: Mapping[str, int]
    loaded: dict[Any, Any]


def _open(path: Path) -> _Archive:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(512)
        refuse_lfs_pointer(path, start)
        if not start.startswith(b"PK\x03\x04"):
            raise Refused(_what_else(path, start, size))
        try:
            archive = zipfile.ZipFile(_Frugal(file))
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
            raise Refused(f"its {size} bytes are no whole zip archive ({error}): {_TRUNCATED}") from None
        with archive:
            entries = _entries(archive)
            root = _root(entries)
            _refuse_other_byte_order(archive, entries.get(f"{root}/byteorder"))
            loaded = _unpickle(archive, entries[f"{root}/data.pkl"])
            starts = _data_starts(file, entries, size)
    if not isinstance(loaded, dict):
        raise Refused(f"it holds a {type(loaded).__name__}, not a dict of tensors")
    return _Archive(path, size, root, entries, starts, loaded)


class _Frugal(RawIOBase):
    """A file that is read in small pieces: an archive says itself how long its directory is."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, count: int = -1) -> bytes:
        found = self._file.read(_LARGEST_PIECE + 1 if count < 0 else min(count, _LARGEST_PIECE + 1))
        if len(found) > _LARGEST_PIECE:
            raise Refused(f"its directory has more than {_LARGEST_PIECE} bytes, which that of no checkpoint has")
        return found


def _regions(archive: _Archive, tensors: dict[Any, Any]) -> dict[str, Region]:
    """Returns where the tensors of a dict are."""
    if len(tensors) > _MOST_TENSORS:
        raise Refused(f"it holds {len(tensors)} tensors; {_MOST_TENSORS} in one file are read")
    out: dict[str, Region] = {}
    for key, record in tensors.items():
        if not isinstance(key, str) or not isinstance(record, Record):
            raise Refused(
                f"{str(key)[:80]!r} is a {type(record).__name__}, not a tensor. A training checkpoint is read by "
                "HookedTransformer.from_state_dict: is it one?"
            )
        if len(key) > _LONGEST_NAME:
            raise Refused(f"a tensor has a name of {len(key)} characters")
        name = f"{archive.root}/data/{_storage_key(key, record)}"
        if name not in archive.entries:
            raise Refused(f"{key!r} lies in a storage that the archive does not hold")
        nbytes, start = archive.entries[name].file_size, archive.starts[name]
        out[key] = _region(archive.path, key, record, nbytes, start, archive.size)
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
    # Asked first: its code is compressed, and that is not the news.
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in archive.namelist()):
        raise Refused("it is a TorchScript program, not a dict of tensors; it was not run")
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        if len(entry.filename) > _LONGEST_NAME:
            raise Refused(f"an entry has a name of {len(entry.filename)} characters")
        if entry.filename in entries:
            raise Refused(f"the archive holds {entry.filename!r} twice")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise Refused(f"{entry.filename!r} is compressed, which torch.save never does")
        if entry.flag_bits & 1:
            raise Refused(f"{entry.filename!r} is encrypted")
        entries[entry.filename] = entry
    return entries


def _root(entries: Mapping[str, zipfile.ZipInfo]) -> str:
    roots = {name.partition("/")[0] for name in entries}
    if len(roots) != 1:
        raise Refused("the archive has not one folder, as torch.save writes it")
    root = roots.pop()
    if f"{root}/data.pkl" not in entries:
        raise Refused("the archive has no data.pkl")
    return root


def _refuse_other_byte_order(archive: zipfile.ZipFile, entry: zipfile.ZipInfo | None) -> None:
    if entry is not None and _bytes_of(archive, entry, 16) != b"little":
        raise Refused("its numbers are not little-endian: save it again on a machine where they are")


def _unpickle(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Any:
    try:
        return read_description(_bytes_of(archive, entry, _LARGEST_PICKLE))
    except UnicodeDecodeError as error:
        raise Refused(f"its data.pkl is broken ({error})") from None


def _bytes_of(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> bytes:
    if entry.file_size > most:
        raise Refused(f"{entry.filename!r} has {entry.file_size} bytes; in a checkpoint it has at most {most}")
    try:
        with archive.open(entry) as file:
            return b"".join(iter(lambda: file.read(_PIECE), b""))
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, struct.error) as error:
        raise Refused(f"{entry.filename!r} cannot be read ({error}): {_TRUNCATED}") from None


def _storage_key(key: str, record: Record) -> str:
    storage = record.storage
    if not isinstance(storage, StorageRef) or len(record.size) != len(record.stride) or len(record.size) > _MOST_AXES:
        raise Refused(f"{key!r} is described by numbers that make no sense")
    numbers = (record.offset, storage.numel, *record.size, *record.stride)
    if not all(type(number) is int and 0 <= number < _LARGEST_NUMEL for number in numbers):
        raise Refused(f"{key!r} is described by numbers that make no sense")
    return storage.key


def _data_starts(file: BinaryIO, entries: Mapping[str, zipfile.ZipInfo], size: int) -> dict[str, int]:
    """Returns where each entry's bytes begin: behind its local header, which says how long it is."""
    starts: dict[str, int] = {}
    end, before = 0, ""
    for entry in sorted(entries.values(), key=lambda entry: entry.header_offset):
        name = entry.filename
        file.seek(entry.header_offset)
        header = file.read(30)
        if len(header) != 30 or header[:4] != b"PK\x03\x04":
            raise Refused(f"{name!r} is not where the archive says")
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        if file.read(name_length).decode("utf-8", "replace") != name:
            raise Refused(f"{name!r} has another name where its bytes are")
        if entry.header_offset < end:
            raise Refused(f"{name!r} overlaps {before!r}")
        start = int(entry.header_offset + 30 + name_length + extra_length)
        end, before = start + entry.file_size, name
        if end > size:
            raise Refused(f"{name!r} ends at byte {end} of a file of {size}: {_TRUNCATED}")
        starts[name] = start
    return starts


def _region(path: Path, key: str, record: Record, nbytes: int, start: int, file_size: int) -> Region:
    """Returns where in the file a tensor is; its strides stay what they are."""
    storage, size, stride = record.storage, record.size, record.stride
    itemsize = element_size(storage.dtype)
    if storage.numel * itemsize != nbytes:
        raise Refused(
            f"{key!r} lies in a storage of {storage.numel} elements ({storage.numel * itemsize} bytes), "
            f"the archive holds {nbytes} bytes of it"
        )
    region = Region(path, start + record.offset * itemsize, size, storage.dtype, file_size, stride)
    numel = math.prod(size)
    if record.offset + region.numel > storage.numel:
        raise Refused(f"{key!r} reaches {record.offset + region.numel} elements into a storage of {storage.numel}")
    if numel > region.numel:
        raise Refused(f"{key!r} has {numel} elements over {region.numel} of its storage: it overlaps itself")
    return region
