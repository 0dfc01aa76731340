"""Which device to compute on, and what it has left."""

import logging
import os
from typing import Any, Protocol

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
    "ModelWithCfg",
    "calculate_available_device_cuda_memory",
    "determine_available_memory_for_available_devices",
    "get_best_available_cuda_device",
    "get_best_available_device",
    "get_device",
    "get_device_for_block_index",
    "device_from",
    "move_to_and_update_config",
    "numbered",
    "same_device",
    "sort_devices_based_on_available_memory",
    "warn_if_mps",
    "why_not_here",
]


class ModelWithCfg(Protocol):
    """What `move_to_and_update_config` moves: a module with a config that says where it is."""

    cfg: Any

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Returns the tensors by name."""

    def to(self, device_or_dtype: torch.device | str | torch.dtype) -> Any:
        """Moves or casts the tensors."""


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


_MEANT = {"gpu": "cuda", "nvidia": "cuda", "rocm": "cuda", "hip": "cuda", "amd": "cuda", "metal": "mps", "apple": "mps"}


def device_from(value: Any) -> torch.device:
    """Returns the device that a name ("cpu", "cuda:1") or a number means, or `value` if it is one; it may not be here.

    Raises:
        ValueError: It means none.
    """
    if isinstance(value, torch.device):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return torch.device("cuda", value)
    if isinstance(value, str):
        try:
            return torch.device(value)
        except RuntimeError:
            pass
    kind, colon, number = str(value).strip().lower().partition(":")
    meant = _MEANT.get(kind, kind if kind in ("cpu", "cuda", "mps", "xpu") and str(value) != kind else None)
    hint = "" if meant is None or (colon and not number.isdigit()) else f"; {meant + colon + number!r} is"
    raise ValueError(
        f"device = {value!r} is no device that torch knows{hint}. It can be 'cpu', 'cuda', 'cuda:1' or 'mps'."
    )


def why_not_here(device: torch.device) -> str | None:
    """Says why nothing can be put on a device, and what to do; None where it can."""
    if device.type in ("cpu", "meta"):
        return None
    if device.type == "cuda" and torch.cuda.is_available() and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        return f"device = {str(device)!r}: this machine has {count} of that kind, 'cuda:0' to 'cuda:{count - 1}'."
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError):
        return (
            f"device = {str(device)!r} cannot be used here: {_what_is_missing(device.type)}\n"
            "  device='cpu' runs everywhere; without a device the best that is here is taken."
        )
    return None


def _what_is_missing(kind: str) -> str:
    """Returns what torch lacks for a kind of device."""
    this = f"this torch ({torch.__version__})"
    if kind == "cuda" and torch.version.cuda is None and torch.version.hip is None:
        return f"{this} is built without CUDA. Install one that is built with it, if there is an NVIDIA GPU."
    if kind == "cuda":
        return f"{this} finds no GPU. Does nvidia-smi list one, and does CUDA_VISIBLE_DEVICES hide it?"
    if kind == "mps":
        return f"{this} finds no GPU of Apple's (macOS 12.3 or later)."
    return f"{this} finds none, or is not built for it."


def numbered(device: torch.device) -> torch.device:
    """Returns a device with its number: "cuda" is the current GPU, and the first where there is none."""
    if device.type in ("cpu", "meta"):
        return torch.device(device.type)
    if device.index is not None:
        return device
    return torch.device(device.type, 0) if why_not_here(device) else torch.empty(0, device=device).device


def same_device(a: str | torch.device, b: str | torch.device) -> bool:
    """Says whether two spellings mean one device; without a number, the current one is meant."""
    a, b = torch.device(a), torch.device(b)
    return a.type == b.type and (a.index is None or b.index is None or a.index == b.index)


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
    if not isinstance(device_or_dtype, torch.dtype):
        warn_if_mps(device_or_dtype)
    torch.nn.Module.to(model, device_or_dtype)
    if isinstance(device_or_dtype, torch.dtype):
        model.cfg.dtype = device_or_dtype
        message = f"Changing model dtype to {device_or_dtype}"
    else:
        model.cfg.device = str(device_or_dtype)
        message = f"Moving model to device:  {model.cfg.device}"
    if print_details:
        print(message)
    return model
