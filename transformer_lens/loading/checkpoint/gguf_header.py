"""The header of a GGUF file, read before anything trusts it: every length is checked against the file.

Source: the format's specification in the ggml repository.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from transformer_lens.loading.errors import CorruptCheckpointError
from transformer_lens.loading.sources.whole_files import fetch_again, refuse_lfs_pointer

# struct's codes of the fixed-size types of values.
_FIXED = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MOST_ENTRIES = 1 << 16
_LARGEST_ALIGNMENT = 1 << 20
_MOST_AXES = 4
_LARGEST_NUMEL = 1 << 48
# A config has small arrays only; a tokenizer's are walked over and not kept.
_LONGEST_KEPT = 4096
# Numbers and characters that are kept, of all fields together; a real file has a few thousand.
_MOST_KEPT = 1 << 20
# Strings that are walked over: the vocabularies of the largest tokenizers, with their merges, have a third.
_MOST_WALKED = 1 << 21
_DEFAULT_ALIGNMENT = 32


@dataclass(frozen=True)
class GGUFTensor:
    """Where a tensor is, and how its numbers are packed.

    Attributes:
        name: In the file.
        shape: From the outermost axis to the innermost, as torch has it.
        kind: The format's number of the packing.
        offset: First byte in the file.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True)
class GGUFHeader:
    """What a file says of itself.

    Attributes:
        fields: Metadata: numbers, strings, short arrays of numbers.
        tensors: By name.
        file_size: Bytes of the file.
        begin: First byte behind the header, where the first tensor is.
        alignment: Every tensor begins at a multiple of it, counted from there.
    """

    fields: dict[str, Any]
    tensors: dict[str, GGUFTensor]
    file_size: int
    begin: int
    alignment: int


class _Walk:
    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0
        self.kept = self.walked = 0

    def refuse(self, what: str) -> NoReturn:
        raise CorruptCheckpointError(f"{self.path}: {what}.")

    def skip(self, nbytes: int, what: str) -> int:
        start, end = self.at, self.at + nbytes
        if end > len(self.data):
            raise CorruptCheckpointError(
                f"{self.path} ends inside {what}: it has {len(self.data)} bytes, {end} are needed: a download that "
                f"stopped?\n  {fetch_again(self.path)}."
            )
        self.at = end
        return start

    def number(self, code: str, what: str) -> Any:
        start = self.skip(struct.calcsize("<" + code), what)
        return struct.unpack_from("<" + code, self.data, start)[0]

    def string(self, what: str) -> str:
        length = self.number("Q", what)
        start = self.skip(length, what)
        if length > _LONGEST_KEPT:
            return ""
        self.keep(length)
        return self.data[start : start + length].decode("utf-8", "replace")

    def name(self, what: str) -> str:
        found = self.string(what)
        if not found:
            self.refuse(f"{what} is empty, or longer than {_LONGEST_KEPT} bytes")
        return found

    def keep(self, count: int) -> None:
        """Counts what is kept in memory."""
        self.kept += count
        if self.kept > _MOST_KEPT:
            self.refuse(f"its fields and names hold more than {_MOST_KEPT} numbers and characters")

    def value(self, kind: int, what: str) -> Any:
        if kind in _FIXED:
            return self.number(_FIXED[kind], what)
        if kind == _STRING:
            return self.string(what)
        if kind == _ARRAY:
            return self.array(self.number("I", what), self.number("Q", what), what)
        self.refuse(f"{what} has the unknown type {kind}")

    def array(self, kind: int, count: int, what: str) -> Any:
        if kind in _FIXED:
            width = struct.calcsize("<" + _FIXED[kind])
            start = self.skip(width * count, what)
            if count > _LONGEST_KEPT:
                return None
            self.keep(count)
            return struct.unpack_from(f"<{count}{_FIXED[kind]}", self.data, start)
        if kind != _STRING:
            self.refuse(f"{what} is an array of the unknown type {kind}")
        # Each string takes at least its length: no count can be larger than the file allows.
        if count * 8 > len(self.data) - self.at:
            self.skip(count * 8, what)
        self.walked += count
        if self.walked > _MOST_WALKED:
            self.refuse(f"its fields hold more than {_MOST_WALKED} strings")
        length_of = struct.Struct("<Q").unpack_from
        for _ in range(count):
            start = self.skip(8, what)
            self.skip(length_of(self.data, start)[0], what)
        return None


def read_gguf_header(path: Path) -> GGUFHeader:
    """Reads the header of a GGUF file. That a tensor ends inside the file is for whoever knows its packing to check.

    Raises:
        CorruptCheckpointError: It is no GGUF file, is one of several parts, or something in its header does not fit.
    """
    with path.open("rb") as file:
        start = file.read(200)
        refuse_lfs_pointer(path, start)
        if start[:4] != b"GGUF":
            raise CorruptCheckpointError(f"{path} does not start with GGUF: is it a GGUF file?")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read(_Walk(data, path))


def _read(walk: _Walk) -> GGUFHeader:
    walk.skip(4, "its magic number")
    version = walk.number("I", "its version")
    if version not in (2, 3):
        swapped = int.from_bytes(version.to_bytes(4, "big"), "little")
        walk.refuse(
            "its numbers are not little-endian"
            if swapped in (2, 3)
            else f"it is GGUF of version {version}; 2 and 3 are known"
        )
    n_tensors, n_fields = walk.number("Q", "its counts"), walk.number("Q", "its counts")
    if n_tensors > _MOST_ENTRIES or n_fields > _MOST_ENTRIES:
        walk.refuse(f"it says that it holds {n_tensors} tensors and {n_fields} fields")
    fields: dict[str, Any] = {}
    for _ in range(n_fields):
        name = walk.name("a field's name")
        if name in fields:
            walk.refuse(f"the field {name!r} stands twice")
        fields[name] = walk.value(walk.number("I", f"field {name!r}"), f"field {name!r}")
    parts = fields.get("split.count", 0)
    if parts not in (0, 1):
        walk.refuse(f"it is one of {parts} parts, which `llama-gguf-split --merge` puts together")
    alignment = _alignment(walk, fields)
    tensors = _tensors(walk, n_tensors, alignment)
    return GGUFHeader(fields, tensors, len(walk.data), walk.at + -walk.at % alignment, alignment)


def _alignment(walk: _Walk, fields: dict[str, Any]) -> int:
    alignment = fields.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 1 <= alignment <= _LARGEST_ALIGNMENT or alignment & (alignment - 1):
        walk.refuse(f"it says that its alignment is {alignment!r}, which is no power of two of a sane size")
    return alignment


def _tensors(walk: _Walk, count: int, alignment: int) -> dict[str, GGUFTensor]:
    found: dict[str, GGUFTensor] = {}
    for _ in range(count):
        name = walk.name("a tensor's name")
        what = f"tensor {name!r}"
        axes = walk.number("I", what)
        if axes > _MOST_AXES:
            walk.refuse(f"{what} has {axes} axes")
        shape = tuple(walk.number("Q", what) for _ in range(axes))
        kind, offset = walk.number("I", what), walk.number("Q", what)
        if name in found:
            walk.refuse(f"{what} stands twice")
        if math.prod(shape) > _LARGEST_NUMEL:
            walk.refuse(f"{what} has the shape {shape[::-1]}, more than any machine holds")
        if offset % alignment:
            walk.refuse(f"{what} begins at byte {offset}, and everything begins at multiples of {alignment}")
        found[name] = GGUFTensor(name, shape[::-1], kind, offset)
    begin = walk.at + -walk.at % alignment
    return {name: GGUFTensor(name, tensor.shape, tensor.kind, begin + tensor.offset) for name, tensor in found.items()}
