"""Dtype and device of the result."""

from __future__ import annotations

import torch

from transformer_lens.loading.processing.linear_chain import recast
from transformer_lens.loading.quantization.promises import moved
from transformer_lens.loading.weights import LazyTensor, Weights


def cast(weights: Weights, dtype: torch.dtype, device: torch.device) -> Weights:
    """Promises every tensor in a dtype on a device, in the order of axes that it has in memory.

    What is right already stays the same promise. Integers, booleans and packed weights keep their dtype.

    Args:
        weights: Left as they are.
        dtype: Of floating-point tensors.
        device: Of all.
    """
    device = numbered(device)
    return Weights({name: _cast(tensor, dtype, device) for name, tensor in weights.items()})


def _cast(tensor: LazyTensor, dtype: torch.dtype, device: torch.device) -> LazyTensor:
    moves = tensor.device != device
    if tensor.packed is not None:
        return moved(tensor, device) if moves else tensor
    wanted = dtype if tensor.dtype.is_floating_point else tensor.dtype
    return recast(tensor, wanted, device) if moves or tensor.dtype != wanted else tensor


def numbered(device: torch.device) -> torch.device:
    """Returns a device with its number: "cuda" is one of them. A device that is not here may be planned for."""
    if str(device) != device.type or device.type in ("cpu", "meta"):
        return device
    try:
        return torch.empty(0, device=device).device
    except (AssertionError, RuntimeError):
        # This torch was not built for it, or sees none.
        return torch.device(device.type, 0)
