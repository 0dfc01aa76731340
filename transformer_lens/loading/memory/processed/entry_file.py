"""Reading an entry: a safetensors file whose metadata says how each tensor of ours lies in it.

A tensor is stored in the order in which it lies in memory, so that a view of the mapped file has the strides that
processing gave it.
"""

from __future__ import annotations

import hashlib
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from transformer_lens.loading.checkpoint.regions import Region
from transformer_lens.loading.checkpoint.safetensors import read_whole_header
from transformer_lens.loading.errors import CorruptCheckpointError
from transformer_lens.loading.memory.processed.folder import own_file
from transformer_lens.loading.sources.json_files import parse_object

KIND = "transformer_lens processed weights"
NO_DIGEST = "0" * 32
_PIECE = 4 << 20
_LARGEST = 1 << 48
# An entry of a hundred thousand tensors has less.
_LARGEST_HEADER = 32 << 20
_DIGEST, _CHECKSUM = re.compile("[0-9a-f]{32}"), re.compile("[0-9a-f]{8}")


class BrokenEntry(Exception):
    """The bare fact; whoever knows what follows from it says the rest."""


@dataclass(frozen=True)
class EntryFile:
    """An entry whose header is whole.

    Attributes:
        path: The file.
        nbytes: Its size.
        regions: Our tensors, by our names, shapes and strides.
        checksums: CRC-32 of each tensor's bytes.
        place: What the entry is for.
        state: What the sources were like.
        label: The checkpoint.
        dtype: Of the parameters.
        created: When it was written, as ISO 8601 says.
    """

    path: Path
    nbytes: int
    regions: Mapping[str, Region]
    checksums: Mapping[str, int]
    place: Mapping[str, Any]
    state: Mapping[str, Any]
    label: str
    dtype: str
    created: str


def open_entry(path: Path) -> EntryFile:
    """Reads an entry's header; its size and its digest are checked, numbers are not read.

    Raises:
        BrokenEntry: It is not what was written.
        OSError: It cannot be read, or is not there.
    """
    own_file(path)
    with path.open("rb") as file:
        if int.from_bytes(file.read(8), "little") > _LARGEST_HEADER:
            raise BrokenEntry(f"{path.name} says that its header is larger than that of any entry")
    try:
        header = read_whole_header(path)
    except CorruptCheckpointError as error:
        raise BrokenEntry(f"{path.name} is cut off, or its header was changed") from error
    said = header.metadata.get("digest", "")
    if header.metadata.get("kind") != KIND or not _DIGEST.fullmatch(said):
        raise BrokenEntry(f"{path.name} was not written by this cache")
    if header_digest(header.text.replace(said.encode(), NO_DIGEST.encode())) != said:
        raise BrokenEntry(f"{path.name} has a header that was changed, or was never finished")
    try:
        # These are what lists of entries show.
        datetime.fromisoformat(header.metadata["created"])
        place = parse_object(header.metadata["place"].encode())
        if not all(isinstance(step, str) for step in place["steps"]):
            raise BrokenEntry(f"{path.name} has steps of processing that are no names")
        layout = parse_object(header.metadata["tensors"].encode())
        regions = {name: _ours(name, header.regions[name], layout[name]) for name in layout}
        if set(regions) != set(header.regions):
            raise BrokenEntry(f"{path.name} holds other tensors than it says")
        return EntryFile(
            path,
            next((region.file_size for region in regions.values()), 0),
            regions,
            {name: int(layout[name]["crc32"], 16) for name in layout},
            place,
            parse_object(header.metadata["state"].encode()),
            header.metadata["label"],
            header.metadata["dtype"],
            header.metadata["created"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BrokenEntry(f"{path.name} lacks what an entry says of itself ({error!r:.80})") from error


def _ours(name: str, region: Region, said: Mapping[str, Any]) -> Region:
    shape, stride, checksum = said["shape"], said["stride"], said["crc32"]
    numbers = [*shape, *stride]
    if (
        not isinstance(shape, list)
        or not isinstance(stride, list)
        or not all(type(number) is int and 0 <= number <= _LARGEST for number in numbers)
        or len(shape) != len(stride)
        or math.prod(shape) != region.numel
        or not _is_compact(shape, stride)
    ):
        raise BrokenEntry(f"{region.path.name} says what cannot be of the shape of {name}")
    if not _CHECKSUM.fullmatch(checksum):
        raise BrokenEntry(f"{region.path.name} has no checksum of {name}")
    return replace(region, shape=tuple(shape), stride=tuple(stride))


def _is_compact(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether strides place the elements one behind the other, in some order of the axes."""
    room = 1
    for step, size in sorted((step, size) for step, size in zip(stride, shape) if size > 1):
        if step != room:
            return 0 in shape
        room *= size
    return True


def header_digest(text: bytes) -> str:
    """Returns the digest of a header that has zeros in its place."""
    return hashlib.blake2b(text, digest_size=len(NO_DIGEST) // 2).hexdigest()


def damaged(entry: EntryFile) -> list[str]:
    """Reads every byte of an entry, and returns the names of tensors whose checksum is another than it was."""
    out: list[str] = []
    buffer = memoryview(bytearray(_PIECE))
    with entry.path.open("rb", buffering=0) as file:
        for name, region in entry.regions.items():
            file.seek(region.offset)
            left, checksum = region.nbytes, 0
            while left:
                count = file.readinto(buffer[: min(left, _PIECE)])
                if not count:
                    break
                checksum = zlib.crc32(buffer[:count], checksum)
                left -= count
            if left or checksum != entry.checksums[name]:
                out.append(name)
    return out
