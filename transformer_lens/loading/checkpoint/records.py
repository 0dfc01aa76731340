"""The pickle of a checkpoint, run as a description: it makes records of tensors and nothing else.

Two lists say all that can happen: the names that a pickle may use, each of which makes a record, and the instructions
that ``torch.save`` writes, in every pickle protocol. What is not on them is refused before it is run. No object of a
class takes part: what is made are dicts, lists, tuples, text, numbers and records.

The cost is bounded before the first byte is read. An instruction makes at most one object, and there are at most
2^20 of them; a key is text or a small number, so that no key is costly to hash; and what is made stays small when it is
walked over (`refuse_what_never_ends`), so that whoever reads it may do so.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

_STORAGES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip
# Thirty-five instructions describe a tensor: a file of thirty thousand tensors is below.
_MOST_INSTRUCTIONS = 1 << 20
_MOST_VALUES = 1 << 20
_MOST_NESTED = 32
_LARGEST_KEY = 1 << 31
_LATEST_PROTOCOL = 5


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
    """A tensor that a pickle describes."""

    storage: StorageRef
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Call(NamedTuple):
    """What a pickle may call, by what it does here."""

    make: Callable[..., Any]


def _rebuild_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, metadata: Any = None
) -> Record:
    """Stands for ``torch._utils._rebuild_tensor_v2``."""
    if metadata:
        raise Refused("a tensor is marked as conjugated or negated, which no weight is")
    if type(size) is not tuple or type(stride) is not tuple:
        raise Refused("a tensor has a shape or strides that are no tuple")
    return Record(storage, offset, size, stride)


def _rebuild_parameter(record: Any, requires_grad: Any, hooks: Any) -> Any:
    """Stands for ``torch._utils._rebuild_parameter``."""
    return record


def _empty_dict() -> dict[Any, Any]:
    """Stands for ``collections.OrderedDict``, which torch.save fills by instructions, never by arguments."""
    return {}


_KNOWN: dict[tuple[str, str], Call | StorageType] = {
    ("collections", "OrderedDict"): Call(_empty_dict),
    ("torch._utils", "_rebuild_tensor_v2"): Call(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): Call(_rebuild_parameter),
    **{("torch", name): StorageType(dtype) for name, dtype in _STORAGES.items()},
}


def read_description(text: bytes) -> Any:
    """Returns what a pickle describes.

    Raises:
        Refused: It breaks off, has an instruction or a name that is not known, or is larger than any description of a
            checkpoint.
    """
    found = _Machine(text).run()
    refuse_what_never_ends(found)
    return found


def refuse_what_never_ends(value: Any) -> None:
    """Raises for what is large to walk over, though a few instructions make it: a list of itself, lists of lists of it.

    Raises:
        Refused: It has more values, or is nested more deeply, than any checkpoint.
    """
    level, seen = [value], 0
    for _ in range(_MOST_NESTED):
        below: list[Any] = []
        for one in level:
            if type(one) is dict:
                below.extend(one.values())
            elif type(one) in (list, tuple):
                below.extend(one)
            if seen + len(below) > _MOST_VALUES:
                raise Refused(f"its pickle describes more than {_MOST_VALUES} values")
        seen += len(below)
        if not below:
            return
        level = below
    raise Refused(f"its pickle describes values that are nested more than {_MOST_NESTED} deep")


class _Machine:
    """The stack, the marks on it, and what is remembered, as the pickle format has them."""

    def __init__(self, text: bytes) -> None:
        self.text, self.at = text, 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(_MOST_INSTRUCTIONS):
            code = self.take(1)[0]
            if code == _STOP:
                found = self.pop()
                if self.stack or self.at != len(self.text):
                    raise Refused("its data.pkl is broken (something is left at its end)")
                return found
            step = _STEPS.get(code)
            if step is None:
                raise Refused("its pickle has an instruction that no description of tensors needs; it was not run")
            step(self)
        raise Refused(f"its pickle has more than {_MOST_INSTRUCTIONS} instructions")

    def take(self, count: int) -> bytes:
        """Returns the next bytes of the text."""
        start, self.at = self.at, self.at + count
        if self.at > len(self.text):
            raise Refused("its data.pkl is broken (it breaks off)")
        return self.text[start : self.at]

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def line(self) -> str:
        end = self.text.find(b"\n", self.at)
        if end < 0:
            raise Refused("its data.pkl is broken (it breaks off)")
        found = self.take(end - self.at).decode("utf-8")
        self.at = end + 1
        return found

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Refused("its data.pkl is broken (it takes what is not there)")
        return self.stack.pop()

    def popped(self, count: int) -> list[Any]:
        return [self.pop() for _ in range(count)][::-1]

    def to_mark(self) -> list[Any]:
        """Returns all above the last mark, and takes it away."""
        if not self.marks:
            raise Refused("its data.pkl is broken (it takes what is not there)")
        mark = self.marks.pop()
        found = self.stack[mark:]
        del self.stack[mark:]
        return found

    def top(self, kind: type) -> Any:
        """Returns the last value, of one type and no other."""
        found = self.pop()
        if type(found) is not kind:
            raise Refused(f"its data.pkl is broken (it fills a {type(found).__name__} as if it were a {kind.__name__})")
        self.stack.append(found)
        return found

    def text_of(self, length: int) -> None:
        self.stack.append(self.take(length).decode("utf-8"))

    def remember(self, place: int) -> None:
        found = self.pop()
        self.stack.append(found)
        self.memo[place] = found

    def recall(self, place: int) -> None:
        if place not in self.memo:
            raise Refused("its data.pkl is broken (it recalls what it has not remembered)")
        self.stack.append(self.memo[place])

    def append(self, values: list[Any]) -> None:
        self.top(list).extend(values)

    def set_items(self, values: list[Any]) -> None:
        if len(values) % 2:
            raise Refused("its data.pkl is broken (a key has no value)")
        target = self.top(dict)
        for key, value in zip(values[::2], values[1::2]):
            # Anything else may be costly to hash, and is no name of a tensor.
            if type(key) is not str and not (type(key) is int and 0 <= key < _LARGEST_KEY):
                raise Refused(f"its pickle has a {type(key).__name__} as a key, and keys are text")
            if key in target:
                raise Refused(f"its pickle sets {str(key)[:80]!r} twice")
            target[key] = value

    def find(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise Refused("its data.pkl is broken (a name is no text)")
        if (module, name) not in _KNOWN:
            raise Refused(f"its pickle names {module[:80]}.{name[:80]}, which is not data; it was not run")
        self.stack.append(_KNOWN[module, name])

    def call(self) -> None:
        function, arguments = self.popped(2)
        if type(function) is not Call or type(arguments) is not tuple:
            raise Refused("its data.pkl is broken (it calls what cannot be called)")
        if function.make is _empty_dict and arguments:
            raise Refused("its pickle fills an OrderedDict by arguments, which torch.save never does")
        try:
            self.stack.append(function.make(*arguments))
        except TypeError as error:
            raise Refused(f"its data.pkl is broken ({error})") from None

    def build(self) -> None:
        """Drops the attributes of a dict (a state dict's ``_metadata``); nothing else has any."""
        self.pop()
        self.top(dict)

    def storage(self) -> None:
        pid = self.pop()
        if not (type(pid) is tuple and len(pid) == 5 and type(pid[0]) is str and pid[0] == "storage"):
            raise Refused("its pickle refers to something else than a storage")
        _, kind, key, _, numel = pid
        if type(kind) is not StorageType:
            raise Refused("its pickle refers to something else than a storage")
        if type(key) is not str or type(numel) is not int:
            raise Refused("its pickle refers to a storage without name or size")
        self.stack.append(StorageRef(kind.dtype, key, numel))

    def protocol(self) -> None:
        version = self.number("B")
        if version > _LATEST_PROTOCOL:
            raise Refused(f"its pickle is of protocol {version}; up to {_LATEST_PROTOCOL} are known")

    def global_name(self) -> None:
        module = self.line()
        self.find(module, self.line())

    def push(self, value: Any) -> None:
        self.stack.append(value)


_STOP = ord(".")
# Left out on purpose: what makes instances, uses the registry of extensions, or allocates by a length it only claims.
# Numbers are those of the pickle format; frames are read through, because the text is here as a whole.
_STEPS: dict[int, Callable[[_Machine], None]] = {
    0x80: _Machine.protocol,
    0x95: lambda machine: machine.number("Q") and None,
    ord("("): lambda machine: machine.marks.append(len(machine.stack)),
    ord("N"): lambda machine: machine.push(None),
    0x88: lambda machine: machine.push(True),
    0x89: lambda machine: machine.push(False),
    ord("J"): lambda machine: machine.push(machine.number("i")),
    ord("K"): lambda machine: machine.push(machine.number("B")),
    ord("M"): lambda machine: machine.push(machine.number("H")),
    0x8A: lambda machine: machine.push(int.from_bytes(machine.take(machine.number("B")), "little", signed=True)),
    ord("G"): lambda machine: machine.push(struct.unpack(">d", machine.take(8))[0]),
    ord("X"): lambda machine: machine.text_of(machine.number("I")),
    0x8C: lambda machine: machine.text_of(machine.number("B")),
    0x8D: lambda machine: machine.text_of(machine.number("Q")),
    ord(")"): lambda machine: machine.push(()),
    ord("t"): lambda machine: machine.push(tuple(machine.to_mark())),
    0x85: lambda machine: machine.push(tuple(machine.popped(1))),
    0x86: lambda machine: machine.push(tuple(machine.popped(2))),
    0x87: lambda machine: machine.push(tuple(machine.popped(3))),
    ord("]"): lambda machine: machine.push([]),
    ord("a"): lambda machine: machine.append(machine.popped(1)),
    ord("e"): lambda machine: machine.append(machine.to_mark()),
    ord("}"): lambda machine: machine.push({}),
    ord("s"): lambda machine: machine.set_items(machine.popped(2)),
    ord("u"): lambda machine: machine.set_items(machine.to_mark()),
    ord("q"): lambda machine: machine.remember(machine.number("B")),
    ord("r"): lambda machine: machine.remember(machine.number("I")),
    0x94: lambda machine: machine.remember(len(machine.memo)),
    ord("h"): lambda machine: machine.recall(machine.number("B")),
    ord("j"): lambda machine: machine.recall(machine.number("I")),
    ord("c"): _Machine.global_name,
    0x93: lambda machine: machine.find(*machine.popped(2)),
    ord("R"): _Machine.call,
    ord("b"): _Machine.build,
    ord("Q"): _Machine.storage,
}
