"""Dtype and device of the result."""

from __future__ import annotations

import torch

from transformer_lens.loading.processing.linear_chain import recast
from transformer_lens.loading.weights import LazyTensor, Weights


def cast(weights: Weights, dtype: torch.dtype, device: torch.device) -> Weights:
    """Promises every tensor in a dtype on a device. What is right already stays the same promise."""
    return Weights({name: _cast(tensor, dtype, device) for name, tensor in weights.items()})


def _cast(tensor: LazyTensor, dtype: torch.dtype, device: torch.device) -> LazyTensor:
    wanted = dtype if tensor.dtype.is_floating_point and not tensor.packed else tensor.dtype
    if tensor.dtype == wanted and tensor.device == device:
        return tensor
    return recast(tensor, wanted, device)
