"""How much memory a load may take, and whether it fits."""

from __future__ import annotations

from pathlib import Path

import torch

from transformer_lens.loading.errors import InsufficientMemoryError
from transformer_lens.loading.report import gib
from transformer_lens.loading.weights import Held, Weights

_CGROUPS = (
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current", "sys/fs/cgroup/memory.stat"),
    (
        "sys/fs/cgroup/memory/memory.limit_in_bytes",
        "sys/fs/cgroup/memory/memory.usage_in_bytes",
        "sys/fs/cgroup/memory/memory.stat",
    ),
)


def available_memory(root: Path = Path("/")) -> int | None:
    """Returns the bytes of main memory that can still be taken: the machine's, or a container's if that is less.

    None where the system does not say (it is not Linux).
    """
    found = [
        value for value in (_machine(root), *(_container(root, *names) for names in _CGROUPS)) if value is not None
    ]
    return min(found, default=None)


def _machine(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    return None


def _container(root: Path, limit: str, usage: str, stat: str) -> int | None:
    try:
        most = (root / limit).read_text().strip()
        used = int((root / usage).read_text())
        # Pages of files count as used, and are given back when memory is short.
        fields = dict(line.split() for line in (root / stat).read_text().splitlines())
    except (OSError, ValueError):
        return None
    if not most.isdigit():
        return None
    return max(0, int(most) - used + int(fields.get("inactive_file", 0)) + int(fields.get("active_file", 0)))


def peak_of(weights: Weights, mode: str) -> int:
    """Returns the private main memory that a load takes at most: what it makes for good, and one tensor."""
    own = [
        tensor.nbytes
        for tensor in weights.values()
        if tensor.device.type == "cpu" and (mode == "copy" or tensor.held is Held.FRESH)
    ]
    return sum(own) + max(own, default=0)


def refuse_what_does_not_fit(weights: Weights, mode: str, label: str, savings: tuple[str, ...]) -> None:
    """Raises before anything is read for a load that the machine cannot hold.

    Raises:
        InsufficientMemoryError: The peak is more than there is, on the CPU or on a GPU.
    """
    needed, there = peak_of(weights, mode), available_memory()
    places = [("main memory", needed, there)]
    for device in {tensor.device for tensor in weights.values() if tensor.device.type == "cuda"}:
        nbytes = sum(tensor.nbytes for tensor in weights.values() if tensor.device == device)
        places.append((str(device), nbytes, int(torch.cuda.mem_get_info(device)[0])))
    for place, bytes_needed, bytes_there in places:
        if bytes_there is not None and bytes_needed > bytes_there:
            hints = "".join(f"\n  would save {sentence}" for sentence in savings)
            raise InsufficientMemoryError(
                f"{label} needs {gib(bytes_needed)} of {place} at its peak, and {gib(bytes_there)} can be had; nothing "
                f"was read.{hints}\n  check_memory=False loads all the same."
            )
