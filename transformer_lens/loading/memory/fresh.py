"""Memory for results: mapped for each tensor alone, in the order of axes in which it will be multiplied.

A large tensor gets anonymous pages of its own, which go back to the system the moment it is let go. The C library's
allocator would keep much of them: after a few large blocks have been freed it serves tensors of up to 32 MiB from a
heap that only shrinks from its end.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from transformer_lens.loading.memory.pages import pages
from transformer_lens.loading.weights import element_size

# Below this the allocator's heap is good enough, and page granularity would waste more than it gives back.
_LARGE = 1 << 20
_CAN_MAP = sys.platform != "win32"


def order_of(tensor: Tensor) -> tuple[int, ...]:
    """Returns a tensor's axes from outermost to innermost in memory."""
    strides = tensor.stride()
    return tuple(sorted(range(tensor.ndim), key=lambda axis: (-strides[axis], axis)))


def empty_in_order(
    shape: Sequence[int], order: Sequence[int], dtype: torch.dtype, device: torch.device | None
) -> Tensor:
    """Allocates a compact tensor whose axes lie in memory in the given order; its values are not set."""
    stored = empty([shape[axis] for axis in order], dtype, device)
    return stored.permute([list(order).index(axis) for axis in range(len(shape))])


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device | None) -> Tensor:
    """Allocates a contiguous tensor; its values are not set."""
    numel = 1
    for size in shape:
        numel *= size
    nbytes = numel * element_size(dtype)
    on_cpu = device is None or torch.device(device).type == "cpu"
    if not (on_cpu and _CAN_MAP) or nbytes < _LARGE:
        return torch.empty(list(shape), dtype=dtype, device=device)
    return torch.frombuffer(pages(nbytes), dtype=dtype, count=numel).view(list(shape))


def give_back() -> None:
    """Returns what the C library's allocator keeps of small tensors that are gone, where it can be told to."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
