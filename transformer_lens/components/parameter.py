"""Where parameters are made: one function, so that a load can make them without memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import nn

Device = str | torch.device | None
_device: ContextVar[Device] = ContextVar("parameter_device", default=None)
_pending: ContextVar[Device] = ContextVar("pending_parameter_device", default=None)


def new_parameter(
    *shape: int, dtype: torch.dtype, order: Sequence[int] | None = None, fill: float | None = None
) -> nn.Parameter:
    """Makes a parameter.

    Args:
        *shape: Its shape.
        dtype: Its dtype.
        order: The axes from outermost to innermost in memory; None means as in `shape`. A weight kept in the order
            in which it is multiplied is never copied to be multiplied.
        fill: The value of every element; None leaves the values unset.
    """
    axes = range(len(shape)) if order is None else order
    stored = torch.empty(*(shape[axis] for axis in axes), dtype=dtype, device=_device.get())
    if fill is not None:
        stored.fill_(fill)
    return nn.Parameter(stored.permute(*(axes.index(axis) for axis in range(len(shape)))))


def parameter_device() -> Device:
    """Returns where parameters are made at present; None means torch's default."""
    return _device.get()


@contextmanager
def parameters_on(device: Device) -> Iterator[None]:
    """Makes our own parameters on a device inside the block; nothing else is touched."""
    token = _device.set(device)
    try:
        yield
    finally:
        _device.reset(token)


@contextmanager
def pending_parameter_device(device: Device) -> Iterator[None]:
    """Asks the next ``HookedTransformer.__init__`` inside the block to make its own parameters on a device.

    The request is taken once, for the model's own modules: what a subclass's ``__init__`` adds is real.
    """
    token = _pending.set(device)
    try:
        yield
    finally:
        _pending.reset(token)


def take_pending_parameter_device() -> Device:
    """Returns the pending request, and clears it."""
    device = _pending.get()
    _pending.set(None)
    return device
