"""What a load is asked for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from transformer_lens.loading.errors import QuantizedTensorError
from transformer_lens.loading.processing import Flags
from transformer_lens.loading.quantization.settings import Settings
from transformer_lens.utilities.dtypes import dtype_from


@dataclass(frozen=True)
class Request:
    """The arguments of a load, checked.

    Attributes:
        model_name: A folder, a file, a hub id or an alias; None with `hf_model`.
        hf_model: A live transformers model, borrowed.
        flags: Steps of processing.
        dtype: Of the parameters; None takes the checkpoint's.
        device: Where the parameters will be; None takes the best at hand.
        quantize: How matrices are packed on load; None leaves them as they are.
        dequantize: Whether packed matrices are loaded as numbers.
        fetch: Which files may be fetched: "all"; "rest": all but safetensors files that are not here, whose headers
            are read where they are, which is enough for a plan; "none" of the files of weights.
        cache_processed: Whether processed weights are kept as a file and mapped next time; None asks the environment.
    """

    model_name: str | None = None
    hf_model: Any = None
    flags: Flags = field(default_factory=Flags)
    checkpoint_index: int | None = None
    checkpoint_value: int | None = None
    device: str | torch.device | None = None
    n_devices: int = 1
    default_prepend_bos: bool | None = None
    dtype: torch.dtype | None = torch.float32
    first_n_layers: int | None = None
    n_ctx: int | None = None
    load_mode: str = "auto"
    io: str = "auto"
    revision: str | None = None
    subfolder: str | None = None
    token: str | bool | None = field(default=None, repr=False)
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False
    adapter: str | None = None
    check_memory: bool = True
    fetch: str = "all"
    progress: bool | None = None
    quantize: Settings | None = None
    dequantize: bool = False
    cache_processed: bool | None = None

    def __post_init__(self) -> None:
        if self.model_name is None and self.hf_model is None:
            raise ValueError("from_pretrained needs a model_name (a folder, a hub id, an alias) or an hf_model.")
        for name in ("first_n_layers", "n_ctx"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"{name} = {value!r} is not a whole number of at least 1.")
        if self.n_devices < 1:
            raise ValueError(f"n_devices = {self.n_devices} is less than 1.")
        if self.quantize is not None and self.dequantize:
            raise QuantizedTensorError("dequantize=True and an argument that packs the weights exclude each other.")


def requested_dtype(dtype: str | torch.dtype) -> torch.dtype | None:
    """Returns the dtype asked for, None for "auto".

    Raises:
        ValueError: There is no such dtype, or it is not one that models compute in.
    """
    if dtype == "auto":
        return None
    out = dtype_from(dtype)
    if not out.is_floating_point or torch.finfo(out).bits < 16:
        raise ValueError(f"dtype = {dtype!r}: models compute in float16, bfloat16, float32 or float64.")
    return out


def one_of(value: int | None, label: int | str | None) -> int | None:
    """Returns `checkpoint_value` or `checkpoint_label`, which mean the same; "step1000" means 1000.

    Raises:
        ValueError: Both are given and differ, or the label holds no number.
    """
    if label is None:
        return value
    digits = str(label).rsplit("-", 1)[-1].removeprefix("step")
    if not digits.isdigit():
        raise ValueError(f"checkpoint_label = {label!r} holds no step.")
    if value is not None and value != int(digits):
        raise ValueError(f"checkpoint_value = {value} and checkpoint_label = {label!r} are two checkpoints.")
    return int(digits)


def refuse_unknown_arguments(kwargs: Mapping[str, Any]) -> None:
    """Raises for arguments that mean nothing here, rather than ignore them.

    Raises:
        TypeError: One is not known.
    """
    if "low_cpu_mem_usage" in kwargs:
        warnings.warn("low_cpu_mem_usage has no effect: every load is frugal.", stacklevel=3)
    unknown = [name for name in kwargs if name != "low_cpu_mem_usage"]
    if unknown:
        raise TypeError(f"from_pretrained() got arguments that it does not know: {', '.join(sorted(unknown))}.")
