"""Mappings that are only read: one serves all who read the same piece of a file about the same time.

A parameter has a mapping of its own. What is only computed with need not: the three matrices that are cut out of one of
GPT-2's, and the biases that are computed of them, would map the same bytes six times, and the first touch of a mapping
costs more than a pass over it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

from transformer_lens.loading.weights import LazyTensor

# As many as a few threads read at a time. A mapping that is not kept lives as long as somebody reads it.
_KEPT = 8


class _Mappings:
    """The mappings that were asked for last; threads may share them."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, piece: Hashable, map_it: Callable[[], Tensor]) -> Tensor:
        with self._lock:
            tensor = self._kept.pop(piece, None)
            if tensor is None:
                tensor = map_it()
                if len(self._kept) == _KEPT:
                    self._kept.popitem(last=False)
            self._kept[piece] = tensor
            return tensor


_mappings: ContextVar[_Mappings | None] = ContextVar("mappings", default=None)
_only_reads: ContextVar[bool] = ContextVar("only_reads", default=False)


@contextmanager
def mappings_shared() -> Iterator[None]:
    """Lets what `to_read` maps be shared inside the block: with threads that run in a copy of its context, too."""
    token = _mappings.set(_Mappings())
    try:
        yield
    finally:
        _mappings.reset(token)


def to_read(promise: LazyTensor) -> Tensor:
    """Keeps a promise for someone who neither writes to the tensor nor passes it on."""
    token = _only_reads.set(True)
    try:
        return promise.make()
    finally:
        _only_reads.reset(token)


def mapped(piece: Hashable, map_it: Callable[[], Tensor]) -> Tensor:
    """Returns a mapping of a piece of a file: a new one, or where it is only read, maybe the one of another reader."""
    mappings = _mappings.get()
    return map_it() if mappings is None or not _only_reads.get() else mappings.of(piece, map_it)
