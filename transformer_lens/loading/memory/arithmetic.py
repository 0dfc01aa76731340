"""What keeping promises takes, in bytes, before one is kept: the arithmetic of loaders and of what they call.

Promises are kept one after the other, in the order of the weights. While one is kept its sources are alive, then its
result; what was kept before stays. The peak is the highest of these sums, not the sum of the parts' peaks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch

from transformer_lens.loading.memory import available
from transformer_lens.loading.memory.order import in_file_order
from transformer_lens.loading.weights import Held, Joint, LazyTensor, Weights

MAIN_MEMORY = "cpu"
# Results that wait until they are asked for, by the computation that made them and their place in it, in bytes.
Waiting = dict[Joint, dict[int, int]]


@dataclass(frozen=True)
class DeviceCost:
    """What a load takes of one device.

    Attributes:
        device: "cpu" is main memory, "cuda:0" a device of its own.
        mapped: Bytes of parameters that are pages of files: not private until they are written to.
        borrowed: Bytes of parameters that are a live model's.
        allocated: Bytes of parameters in memory that is made for them.
        peak: Bytes that are taken at most while loading: `allocated` so far and what is under way.
        available: Bytes that can be had; None where the system does not say.
    """

    device: str
    mapped: int
    borrowed: int
    allocated: int
    peak: int
    available: int | None

    @property
    def fits(self) -> bool:
        """Whether the peak is no more than can be had, as far as is known."""
        return self.available is None or self.peak <= self.available

    @property
    def place(self) -> str:
        """Its name for people."""
        return "main memory" if self.device == MAIN_MEMORY else self.device


@dataclass(frozen=True)
class Need:
    """Bytes of one device that keeping a promise takes.

    Attributes:
        peak: At most, its result included.
        kept: For good.
    """

    peak: int
    kept: int


def held_as(weights: Weights, mode: str, tied: Collection[str] = ()) -> Mapping[str, Mapping[Held, int]]:
    """Returns the bytes of parameters by device and by whose memory they are.

    Args:
        weights: By our names.
        mode: "assign" or "copy".
        tied: Names that read the same tensor as another: one of a live model is counted once.
    """
    out: dict[str, dict[Held, int]] = {}
    for name, tensor in weights.items():
        kind = tensor.held if mode == "assign" else Held.FRESH
        held = out.setdefault(str(tensor.device), dict.fromkeys(Held, 0))
        if kind is not Held.BORROWED or name not in tied:
            held[kind] += tensor.nbytes
    return out


def cost_of(
    weights: Weights, mode: str, tied: Collection[str] = (), memory: Mapping[str, int] | None = None
) -> tuple[DeviceCost, ...]:
    """Returns what a load takes of each device, main memory first.

    Args:
        weights: By our names, in the order in which they are loaded.
        mode: "assign" or "copy".
        tied: Names that read the same tensor as another.
        memory: Bytes that can be had, by device or kind of device, where a plan is told; else this machine is asked.
    """
    held = held_as(weights, mode, tied)
    devices = dict.fromkeys([MAIN_MEMORY, *sorted(held)])
    out: list[DeviceCost] = []
    for device in devices:
        kinds = held.get(device, dict.fromkeys(Held, 0))
        out.append(
            DeviceCost(
                device,
                mapped=kinds[Held.MAPPED],
                borrowed=kinds[Held.BORROWED],
                allocated=kinds[Held.FRESH],
                peak=peak_of(weights, mode, device),
                available=_told(device, memory or {}),
            )
        )
    return tuple(out)


def peak_of(weights: Weights, mode: str, device: str = MAIN_MEMORY) -> int:
    """Returns the bytes that a load takes of a device at most."""
    kept = peak = 0
    waiting: Waiting = {}
    for name in in_file_order(weights):
        idle = _idle(waiting)
        need = _loaded(weights[name], mode, device, waiting)
        peak = max(peak, kept + idle + need.peak)
        kept += need.kept
    return max(peak, kept)


def on_the_way(promise: LazyTensor, mode: str) -> int:
    """Returns the bytes of main memory that a loader takes to keep a promise and gives back when it is kept."""
    need = _loaded(promise, mode, MAIN_MEMORY)
    return need.peak - need.kept


def available_on(device: str) -> int | None:
    """Returns the bytes of a device that can be had; None where the system does not say."""
    kind = torch.device(device).type
    if kind == "cpu":
        return available.available_memory()
    if kind == "cuda" and torch.cuda.is_available() and (torch.device(device).index or 0) < torch.cuda.device_count():
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    return None


def _told(device: str, memory: Mapping[str, int]) -> int | None:
    kind = torch.device(device).type
    return memory[device] if device in memory else memory[kind] if kind in memory else available_on(device)


def _idle(waiting: Waiting) -> int:
    return sum(sum(results.values()) for results in waiting.values())


def _loaded(promise: LazyTensor, mode: str, device: str, waiting: Waiting | None = None) -> Need:
    """Returns what it takes to make a parameter of a promise: what loaders do to what they are given."""
    waiting = {} if waiting is None else waiting
    need, own = _made(promise, device, waiting), promise.nbytes if str(promise.device) == device else 0
    if promise.held is not Held.FRESH:
        return need if mode == "assign" else Need(need.kept + own, own)
    if promise.allocates > promise.nbytes and not promise.packed:
        # A part of something larger is copied out of it.
        return Need(max(need.peak, need.kept + own), own)
    return need


def _made(promise: LazyTensor, device: str, waiting: Waiting) -> Need:
    """Returns what it takes to make a promise's tensor, beside what waits already."""
    if promise.held is not Held.FRESH:
        return Need(0, 0)
    works_here = str(promise.sources[0].device if promise.sources else promise.device) == device
    result = promise.allocates if str(promise.device) == device else 0
    if promise.joint is not None and promise.joint[0] in waiting:
        # It has been computed, and only needs to be copied from where it waits.
        waiting[promise.joint[0]].pop(promise.joint[1], None)
        return Need(result, result)
    alive = peak = 0
    for source in promise.sources:
        need = _made(source, device, waiting)
        peak = max(peak, alive + need.peak)
        alive += need.kept
    if promise.joint is not None:
        joint, place = promise.joint
        results = dict(enumerate(joint.nbytes)) if works_here else {}
        peak = max(peak, alive, *((alive + joint.working, joint.least) if works_here else ()))
        # What it was computed of is let go before the result is copied.
        alive = sum(results.values())
        results.pop(place, None)
        waiting[joint] = results
    working = promise.working if works_here else 0
    return Need(max(peak, alive + result + working), result)
