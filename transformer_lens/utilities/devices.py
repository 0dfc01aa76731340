"""Which device to compute on, and what it has left."""

import logging
import os
from typing import Any

import torch

from transformer_lens.utilities.multi_gpu import (
    AvailableDeviceMemory,
    calculate_available_device_cuda_memory,
    determine_available_memory_for_available_devices,
    get_best_available_cuda_device,
    get_best_available_device,
    get_device_for_block_index,
    sort_devices_based_on_available_memory,
)

__all__ = [
    "AvailableDeviceMemory",
    "calculate_available_device_cuda_memory",
    "determine_available_memory_for_available_devices",
    "get_best_available_cuda_device",
    "get_best_available_device",
    "get_device",
    "get_device_for_block_index",
    "move_to_and_update_config",
    "sort_devices_based_on_available_memory",
    "warn_if_mps",
]

ALLOW_MPS = "TRANSFORMERLENS_ALLOW_MPS"


def get_device() -> torch.device:
    """Chooses the default device: CUDA if there is one, else the CPU.

    Apple's MPS is chosen only where the environment variable ``TRANSFORMERLENS_ALLOW_MPS`` is ``1``, because some
    torch releases compute silently wrong numbers on it.
    """
    if torch.cuda.is_available():
        return torch.device("cuda")
    if os.environ.get(ALLOW_MPS) == "1" and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def warn_if_mps(device: str | torch.device) -> None:
    """Warns when `device` is Apple's MPS and the environment variable ``TRANSFORMERLENS_ALLOW_MPS`` is not ``1``."""
    if torch.device(device).type == "mps" and os.environ.get(ALLOW_MPS) != "1":
        logging.getLogger(__name__).warning(
            "The MPS backend of some torch releases gives silently wrong results; compare with device='cpu', "
            "and set %s=1 to hide this warning.",
            ALLOW_MPS,
        )


def move_to_and_update_config(
    model: Any, device_or_dtype: torch.device | str | torch.dtype, print_details: bool = True
) -> Any:
    """Moves a model to a device, or casts it to a dtype, and writes it into ``model.cfg``.

    Args:
        model: An ``nn.Module`` with a ``cfg``.
        device_or_dtype: Where to, or to what.
        print_details: Say so.

    Returns:
        The model.
    """
    if isinstance(device_or_dtype, torch.dtype):
        model.cfg.dtype = device_or_dtype
        message = f"Changing model dtype to {device_or_dtype}"
    else:
        warn_if_mps(device_or_dtype)
        model.cfg.device = str(device_or_dtype)
        message = f"Moving model to device:  {model.cfg.device}"
    if print_details:
        print(message)
    return torch.nn.Module.to(model, device_or_dtype)
