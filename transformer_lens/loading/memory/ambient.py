"""What torch is set to around a load, and what a load computes under.

A load's numbers depend on its arguments alone. Autocast, inference mode and a default device belong to a thread: they
are off inside the block, and nobody else sees it. The precision of products and the default dtype belong to the whole
process: they are held while any load computes, and are as they were when the last one has ended. Deterministic
algorithms stay as they are: what a load computes with has one algorithm only.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch

Undo = Callable[[], object]

# One thread at a time changes what belongs to the process.
turn = threading.Lock()
if os.name == "posix":
    # A process that is forked meanwhile could wait for it forever.
    os.register_at_fork(before=turn.acquire, after_in_parent=turn.release, after_in_child=turn.release)


@contextmanager
def plain_thread() -> Iterator[None]:
    """Takes the calling thread out of autocast, inference mode and contexts of a default device."""
    with ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        for kind in _with_autocast():
            # Old releases of torch have no autocast for some devices.
            with suppress(RuntimeError):
                dtype = torch.bfloat16 if kind == "cpu" else torch.float16
                modes.enter_context(torch.autocast(kind, dtype=dtype, enabled=False))
        # A context costs time at every call, so there is only one where it changes something.
        if torch.empty(0).device.type != "cpu":
            modes.enter_context(torch.device("cpu"))
        if _flushes_denormals():
            torch.set_flush_denormal(False)
            modes.callback(torch.set_flush_denormal, True)
        yield


@contextmanager
def plain_torch() -> Iterator[None]:
    """Takes all that surrounds a computation away: numbers are what they are in a new process. Gradients are off."""
    with plain_thread(), _HELD.held(), torch.no_grad():
        yield


def _with_autocast() -> Iterator[str]:
    """Yields the kinds of devices that are here."""
    yield "cpu"
    if torch.cuda.is_available():
        yield "cuda"
    if torch.backends.mps.is_available():
        yield "mps"
    if "xpu" in torch.__dict__ and torch.xpu.is_available():
        yield "xpu"


def _flushes_denormals() -> bool:
    return not bool(torch.tensor([1 << 20], dtype=torch.int32).view(torch.float32) * 1.0)


class _Held:
    """Settings of the process, held while any thread computes."""

    def __init__(self) -> None:
        self._threads = 0
        self._undo: list[Undo] = []

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds the settings inside the block."""
        with turn:
            self._threads += 1
            self._undo += [*_full_precision(), *_float32()]
        try:
            yield
        finally:
            with turn:
                self._threads -= 1
                while not self._threads and self._undo:
                    self._undo.pop()()


_HELD = _Held()


def _full_precision() -> list[Undo]:
    """Makes products of float32 matrices what they say, and returns how to undo that."""
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:
        # Since torch 2.9 each backend has a setting of its own, and they contradict each other.
        backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
        return [undo for backend in backends for undo in _ieee(backend)]
    if before == "highest":
        return []
    torch.set_float32_matmul_precision("highest")
    return [lambda: torch.set_float32_matmul_precision(before)]


def _ieee(backend: Any) -> list[Undo]:
    before = backend.fp32_precision
    if before in ("ieee", "none"):
        return []

    def undo() -> None:
        backend.fp32_precision = before

    backend.fp32_precision = "ieee"
    return [undo]


def _float32() -> list[Undo]:
    before = torch.get_default_dtype()
    if before == torch.float32:
        return []
    torch.set_default_dtype(torch.float32)
    return [lambda: torch.set_default_dtype(before)]
