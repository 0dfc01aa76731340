"""A model's blocks over several GPUs."""

from typing import Any

import torch

from transformer_lens.utilities.left_out import refusing

AvailableDeviceMemory = list[tuple[int, int]]
"""Pairs of a GPU's index and its free memory in bytes."""


def calculate_available_device_cuda_memory(i: int) -> int:
    """Returns the bytes of GPU `i` that this process has not allocated."""
    return int(torch.cuda.get_device_properties(i).total_memory) - torch.cuda.memory_allocated(i)


def determine_available_memory_for_available_devices(max_devices: int) -> AvailableDeviceMemory:
    """Lists the free memory of the first `max_devices` GPUs, or of all if there are fewer."""
    count = min(max_devices, torch.cuda.device_count())
    return [(i, calculate_available_device_cuda_memory(i)) for i in range(count)]


def sort_devices_based_on_available_memory(devices: AvailableDeviceMemory) -> AvailableDeviceMemory:
    """Sorts by free memory, the most first."""
    return sorted(devices, key=lambda device: device[1], reverse=True)


def get_best_available_cuda_device(max_devices: int | None = None) -> torch.device:
    """Chooses the GPU with the most free memory among the first `max_devices`, or among all.

    Raises:
        EnvironmentError: There is none.
    """
    count = torch.cuda.device_count() if max_devices is None else max_devices
    devices = sort_devices_based_on_available_memory(determine_available_memory_for_available_devices(count))
    if not devices:
        raise OSError("there is no CUDA device")
    return torch.device("cuda", devices[0][0])


def get_best_available_device(cfg: Any) -> torch.device:
    """Chooses where a model's next part goes: the freest of its ``cfg.n_devices`` GPUs, or its one other device."""
    device = torch.device(cfg.device)
    return get_best_available_cuda_device(cfg.n_devices) if device.type == "cuda" else device


def get_device_for_block_index(index: int, cfg: Any, device: torch.device | str | None = None) -> torch.device:
    """Says where a block lives when the blocks are dealt out evenly, in order, to ``cfg.n_devices`` neighbouring GPUs.

    Args:
        index: Number of the block, from zero; ``cfg.n_layers`` for what follows the last.
        cfg: The model's config.
        device: The first GPU; None means ``cfg.device``. A CPU takes everything.
    """
    first = torch.device(cfg.device if device is None else device)
    if first.type == "cpu":
        return first
    step = min(index, cfg.n_layers - 1) * cfg.n_devices // cfg.n_layers
    return torch.device(first.type, (first.index or 0) + step)


__getattr__ = refusing(__name__)
