"""The header of a GGUF file, walked before anything trusts it: every length is checked against the file.

Source: the format's specification in the ggml repository.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from transformer_lens.loading.errors import CorruptCheckpointError
from transformer_lens.loading.sources.json_files import refuse_lfs_pointer

_FIXED = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
_MOST_TENSORS = 1 << 20
_LONGEST_NAME = 1 << 16


class _Walk:
    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0

    def skip(self, nbytes: int, what: str) -> int:
        start, end = self.at, self.at + nbytes
        if end > len(self.data):
            raise CorruptCheckpointError(
                f"{self.path} ends inside {what}: {len(self.data)} bytes, {end} needed: a download that stopped?"
            )
        self.at = end
        return start

    def number(self, code: str, what: str) -> int:
        start = self.skip(struct.calcsize(code), what)
        return int(struct.unpack_from("<" + code, self.data, start)[0])

    def string(self, what: str) -> bytes:
        length = self.number("Q", what)
        start = self.skip(length, what)
        return self.data[start : start + length] if length <= _LONGEST_NAME else b""

    def value(self, kind: int, what: str) -> None:
        if kind in _FIXED:
            self.skip(_FIXED[kind], what)
        elif kind == _STRING:
            self.string(what)
        elif kind == _ARRAY:
            inner, count = self.number("I", what), self.number("Q", what)
            if inner in _FIXED:
                self.skip(_FIXED[inner] * count, what)
            elif inner == _STRING:
                # Each string has at least its length: no count can be larger than the file allows.
                if count * 8 > len(self.data) - self.at:
                    self.skip(count * 8, what)
                for _ in range(count):
                    self.string(what)
            else:
                raise CorruptCheckpointError(f"{self.path}: {what} is an array of the unknown type {inner}.")
        else:
            raise CorruptCheckpointError(f"{self.path}: {what} has the unknown type {kind}.")


def check_header(path: Path) -> None:
    """Walks the header of a GGUF file.

    Raises:
        CorruptCheckpointError: It is no GGUF file, or something in its header does not fit the file.
    """
    with path.open("rb") as file:
        start = file.read(200)
        refuse_lfs_pointer(path, start)
        if start[:4] != b"GGUF":
            raise CorruptCheckpointError(f"{path} does not start with GGUF: is it a GGUF file?")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            walk = _Walk(data, path)
            walk.skip(4, "its magic number")
            version = walk.number("I", "its version")
            if version not in (2, 3):
                raise CorruptCheckpointError(f"{path} is GGUF of version {version}; 2 and 3 are known.")
            tensors, fields = walk.number("Q", "its counts"), walk.number("Q", "its counts")
            if tensors > _MOST_TENSORS or fields > _MOST_TENSORS:
                raise CorruptCheckpointError(f"{path} says that it holds {tensors} tensors and {fields} fields.")
            for _ in range(fields):
                name = walk.string("a field's name").decode("utf-8", "replace")
                walk.value(walk.number("I", f"field {name!r}"), f"field {name!r}")
            for _ in range(tensors):
                name = walk.string("a tensor's name").decode("utf-8", "replace")
                dimensions = walk.number("I", f"tensor {name!r}")
                if dimensions > 4:
                    raise CorruptCheckpointError(f"{path}: tensor {name!r} has {dimensions} dimensions.")
                walk.skip(8 * dimensions + 12, f"tensor {name!r}")
