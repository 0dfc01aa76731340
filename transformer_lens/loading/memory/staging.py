"""A ring of pinned buffers between main memory and a device.

A device reads pinned memory by itself, while the processor fills the next buffer from the file. What a load takes of
main memory on the way to a device is the ring, whatever the size of the model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from transformer_lens.loading.memory.fresh import empty_in_order, order_of
from transformer_lens.loading.weights import element_size

SLOTS = 3
SLOT_BYTES = 32 << 20


class Channel(ABC):
    """What the ring asks of a device: memory it can read by itself, and copies that are not waited for."""

    @abstractmethod
    def pinned(self, nbytes: int) -> Tensor:
        """Returns bytes of main memory that the device can read."""

    @abstractmethod
    def send(self, source: Tensor, target: Tensor) -> object:
        """Begins a copy from pinned memory to the device, behind those begun before; returns its mark."""

    @abstractmethod
    def wait(self, mark: object) -> None:
        """Waits until a copy is done: its source may be written to."""

    @abstractmethod
    def finish(self) -> None:
        """Makes what the device does next wait for the copies begun so far."""


class CudaChannel(Channel):
    """Copies on a stream of their own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def pinned(self, nbytes: int) -> Tensor:
        """Returns pinned memory."""
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)

    def send(self, source: Tensor, target: Tensor) -> object:
        """Begins a copy, once the target's memory is no longer used for what it was before."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
            mark = torch.cuda.Event()  # type: ignore[no-untyped-call]
            mark.record(self._stream)
        return mark

    def wait(self, mark: object) -> None:
        """Waits for an event."""
        assert isinstance(mark, torch.cuda.Event)
        mark.synchronize()

    def finish(self) -> None:
        """Makes the current stream wait for this one."""
        torch.cuda.current_stream(self._device).wait_stream(self._stream)


class Ring:
    """Buffers that are filled and sent in turn."""

    def __init__(self, channel: Channel, slots: int = SLOTS, nbytes: int = SLOT_BYTES) -> None:
        self._channel = channel
        self._nbytes = nbytes
        self._slots = [channel.pinned(nbytes) for _ in range(slots)]
        self._marks: list[object | None] = [None] * slots
        self._turn = 0

    def to_device(self, source: Tensor, device: torch.device) -> Tensor:
        """Returns a tensor's numbers on the device, compact, its axes in the same order; the source is only read."""
        order = order_of(source)
        out = empty_in_order(source.shape, order, source.dtype, device)
        self._send(source.permute(order), out.permute(order))
        self._channel.finish()
        return out

    def _send(self, source: Tensor, target: Tensor) -> None:
        """Sends a tensor whose axes lie in order, in pieces that fit a buffer."""
        if source.numel() == 0:
            return
        if source.numel() * element_size(source.dtype) <= self._nbytes:
            self._send_piece(source, target)
            return
        each = source.numel() // source.shape[0] * element_size(source.dtype)
        if each > self._nbytes:
            for row in range(source.shape[0]):
                self._send(source[row], target[row])
            return
        step = self._nbytes // each
        for start in range(0, source.shape[0], step):
            self._send_piece(source[start : start + step], target[start : start + step])

    def _send_piece(self, source: Tensor, target: Tensor) -> None:
        place = self._turn
        self._turn = (place + 1) % len(self._slots)
        mark = self._marks[place]
        if mark is not None:
            self._channel.wait(mark)
        size = source.numel() * element_size(source.dtype)
        buffer = self._slots[place][:size].view(source.dtype).view(source.shape)
        buffer.copy_(source)
        self._marks[place] = self._channel.send(buffer, target)

    def drain(self) -> None:
        """Waits until every buffer may be let go."""
        for mark in self._marks:
            if mark is not None:
                self._channel.wait(mark)
        self._marks = [None] * len(self._slots)


_rings: ContextVar[dict[torch.device, Ring] | None] = ContextVar("rings", default=None)


@contextmanager
def rings() -> Iterator[None]:
    """Keeps the rings that are made inside until the end: one a device."""
    made: dict[torch.device, Ring] = {}
    token = _rings.set(made)
    try:
        yield
    finally:
        _rings.reset(token)
        for ring in made.values():
            ring.drain()


def moved(source: Tensor, device: torch.device) -> Tensor:
    """Returns a tensor of main memory on a GPU, through a ring; everything else as it is."""
    made = _rings.get()
    if made is None or device.type != "cuda" or source.device.type != "cpu":
        return source
    if device not in made:
        made[device] = Ring(CudaChannel(device))
    return made[device].to_device(source, device)
