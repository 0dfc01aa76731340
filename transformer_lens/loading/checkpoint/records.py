"""The pickle of a checkpoint, run as a description: it makes records of tensors and nothing else.

Two lists say all that can happen: the names that a pickle may use, each of which makes a record, and the opcodes that
``torch.save`` writes, in every pickle protocol. What is not on them is refused before it is run.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from io import BytesIO
from typing import Any, NamedTuple

import torch

_STORAGES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip


class Refused(Exception):
    """The bare fact; the frame that knows the file adds the rest."""


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


class _RebuildTensor:
    """Stands for ``torch._utils._rebuild_tensor_v2``. An object without attributes: a pickle can set none."""

    __slots__ = ()

    def __call__(
        self, storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, metadata: Any = None
    ) -> Record:
        if metadata:
            raise Refused("a tensor is marked as conjugated or negated, which no weight is")
        if not isinstance(size, tuple) or not isinstance(stride, tuple):
            raise Refused("a tensor has a shape or strides that are no tuple")
        return Record(storage, offset, size, stride)


class _RebuildParameter:
    """Stands for ``torch._utils._rebuild_parameter``."""

    __slots__ = ()

    def __call__(self, record: Any, requires_grad: Any, hooks: Any) -> Any:
        return record


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    **{("torch", name): StorageType(dtype) for name, dtype in _STORAGES.items()},
}
# Left out on purpose: what makes instances, uses the registry of extensions, or allocates by a length it only claims.
_OPCODES = (
    pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE,
    pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT,
    pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE8,
    pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3,
    pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT, pickle.SETITEM, pickle.SETITEMS,
    pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET,
    pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE, pickle.BUILD, pickle.BINPERSID,
)  # fmt: skip


def _refuse_opcode(unpickler: Any) -> None:
    raise Refused("its pickle has an instruction that no description of tensors needs; it was not run")


class RecordUnpickler(pickle._Unpickler):
    """Runs a pickle that may name nothing but what is known.

    The Python unpickler is taken on purpose: its opcodes can be listed, and the C one allocates whatever memo index a
    pickle asks for.
    """

    dispatch = {
        **dict.fromkeys(range(256), _refuse_opcode),
        **{opcode[0]: pickle._Unpickler.dispatch[opcode[0]] for opcode in _OPCODES},
    }

    def __init__(self, file: BytesIO) -> None:
        super().__init__(file)

    def find_class(self, module: str, name: str) -> Any:
        """Returns what a name stands for."""
        if (module, name) not in _KNOWN:
            raise Refused(f"its pickle names {str(module)[:80]}.{str(name)[:80]}, which is not data; it was not run")
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> StorageRef:
        """Returns the storage that a pickle refers to."""
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage" and isinstance(pid[1], StorageType)):
            raise Refused("its pickle refers to something else than a storage")
        if not isinstance(pid[2], str) or not isinstance(pid[4], int):
            raise Refused("its pickle refers to a storage without name or size")
        return StorageRef(pid[1].dtype, pid[2], pid[4])
