"""``Weights``: an immutable mapping from a name to a promise of a tensor."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

import torch
from torch import Tensor

from transformer_lens.loading.memory.ambient import plain_torch
from transformer_lens.loading.memory.threads import one_thread_each
from transformer_lens.loading.quantization.packed import Packing


class Held(Enum):
    """What having a tensor costs, and who else holds its memory."""

    MAPPED = "mapped"  #: private copy-on-write pages of a file; no private memory until written to
    BORROWED = "borrowed"  #: memory of the caller: a live model, a state dict
    FRESH = "fresh"  #: memory made for this tensor alone; whoever asked owns it


@dataclass(frozen=True, order=True)
class Span:
    """Bytes of a file.

    Attributes:
        path: The file.
        offset: First byte.
        nbytes: How many.
    """

    path: Path
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Origin:
    """Where a tensor comes from, for reports and error messages.

    Attributes:
        key: Name in the file, the live model or the state dict; empty for what is made up (zeros).
        container: The file's path, or a description such as "the state dict".
        steps: What was done to it since, in order, in words.
        span: The bytes of the file that it is made of; None where there is no file.
    """

    key: str
    container: str = ""
    steps: tuple[str, ...] = ()
    span: Span | None = None

    def then(self, step: str) -> Origin:
        """Returns this origin with one more step."""
        return replace(self, steps=(*self.steps, step))


@dataclass(frozen=True, eq=False)
class Joint:
    """Promises that are computed together: who is asked first computes all, and the others' results wait.

    Each is itself only: two layers of one size are two computations.

    Attributes:
        nbytes: Of each result while it waits, by its place.
        working: Bytes that the computation takes at its peak while its sources are alive.
        least: Bytes that it takes at its peak when they are gone, or were never memory of their own.
    """

    nbytes: tuple[int, ...]
    working: int
    least: int


@dataclass(frozen=True)
class LazyTensor:
    """A promise of one tensor: its shape and cost are known, its numbers are not read.

    Attributes:
        shape: Shape of what `make` returns.
        dtype: Dtype of what `make` returns.
        held: What `make` returns: a mapped view, a borrowed tensor, or memory of its own.
        origin: Where it comes from.
        make: Returns the tensor. May be called more than once; a FRESH one is new every time and its caller may
            write to it; a MAPPED or BORROWED one must never be written to by the loader.
        device: Where the tensor lies.
        layout: The axes' names, space separated, once conversion has given them ("head d_model d_head"); else "".
        packed: How an opaque quantized weight is packed: `make` returns bitsandbytes' own parameter, whose bytes are
            not numbers, and `shape` is that of the numbers. None for any other tensor.
        sources: The promises that this one reads, so that the cost of keeping them is known.
        whole: Bytes of the memory that a FRESH `make` allocates where the promise is a part of it; 0 where it is all.
        working: Bytes that `make` takes at its peak beside its result and what its sources take.
        joint: With which promises it is computed, and its place among them; None where it is computed alone.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    held: Held
    origin: Origin
    make: Callable[[], Tensor] = field(repr=False)
    device: torch.device = torch.device("cpu")
    layout: str = ""
    packed: Packing | None = None
    sources: tuple[LazyTensor, ...] = field(default=(), repr=False)
    whole: int = 0
    working: int = 0
    joint: tuple[Joint, int] | None = None

    @property
    def numel(self) -> int:
        """Number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor, with its scales if it is packed."""
        if self.packed is not None:
            return self.packed.nbytes
        return self.numel * element_size(self.dtype)

    @property
    def cost(self) -> int:
        """Bytes of private memory that keeping the promise takes for good."""
        return self.nbytes if self.held is Held.FRESH else 0

    @property
    def allocates(self) -> int:
        """Bytes of the memory that `make` returns a part of, or all; 0 for what is mapped or borrowed."""
        return max(self.whole, self.cost) if self.held is Held.FRESH else 0

    def view(
        self, function: Callable[[Tensor], Tensor], shape: Iterable[int], layout: str, step: str = ""
    ) -> LazyTensor:
        """Returns a promise of a view: `function` must not copy."""
        assert self.packed is None, "packed bytes are not seen through a layout"
        make = self.make
        return replace(
            self,
            shape=tuple(shape),
            layout=layout,
            make=lambda: function(make()),
            origin=self.origin.then(step) if step else self.origin,
            whole=self.allocates,
        )

    @classmethod
    def of(cls, tensor: Tensor, key: str, container: str = "", held: Held = Held.BORROWED) -> LazyTensor:
        """Wraps a tensor that is already there."""
        return cls(
            shape=tuple(tensor.shape),
            dtype=tensor.dtype,
            held=held,
            origin=Origin(key, container),
            make=lambda: tensor,
            device=tensor.device,
        )


class Weights(Mapping[str, LazyTensor]):
    """An immutable, ordered mapping from names to promises of tensors."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, LazyTensor] | Iterable[tuple[str, LazyTensor]] = ()) -> None:
        self._items: dict[str, LazyTensor] = dict(items)

    def __getitem__(self, name: str) -> LazyTensor:
        return self._items[name]

    def __contains__(self, name: object) -> bool:
        # Mapping's own asks for the item and catches the exception: slow for the thousands of names of a mixture.
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"Weights({len(self)} tensors, {self.nbytes} bytes)"

    def updated(self, changes: Mapping[str, LazyTensor]) -> Weights:
        """Returns these weights with some replaced or added; the order of existing names stays."""
        return Weights({**self._items, **changes})

    def without(self, names: Iterable[str]) -> Weights:
        """Returns these weights less some."""
        gone = set(names)
        return Weights({name: value for name, value in self._items.items() if name not in gone})

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(tensor.nbytes for tensor in self._items.values())

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor], container: str = "the state dict") -> Weights:
        """Wraps the tensors of a state dict; nothing is copied, nothing will be written to."""
        return cls({name: LazyTensor.of(tensor, name, container) for name, tensor in state_dict.items()})

    def state_dict(self) -> dict[str, Tensor]:
        """Keeps every promise, in order."""
        with plain_torch(), one_thread_each():
            return {name: tensor.make() for name, tensor in self._items.items()}


@functools.cache
def element_size(dtype: torch.dtype) -> int:
    """Returns the bytes of one element, also on a torch without ``dtype.itemsize`` (before 2.1)."""
    return torch.empty((), dtype=dtype).element_size()


def bytes_of(tensor: Tensor) -> int:
    """Returns the bytes of a tensor's numbers, also on a torch without ``Tensor.nbytes`` (before 2.1)."""
    return tensor.numel() * tensor.element_size()
