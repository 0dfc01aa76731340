"""What a load is asked for."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from transformer_lens.loading.errors import DeviceError, QuantizedTensorError
from transformer_lens.loading.processing import Flags
from transformer_lens.loading.quantization.settings import Settings
from transformer_lens.utilities.devices import device_from, why_not_here
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
        if not isinstance(self.n_devices, int) or isinstance(self.n_devices, bool) or self.n_devices < 1:
            raise ValueError(f"n_devices = {self.n_devices!r} is not a whole number of at least 1.")
        if self.device is not None:
            try:
                device = device_from(self.device)
            except ValueError as fact:
                raise DeviceError(str(fact)) from None
            if device.type == "meta":
                raise DeviceError("device = 'meta' holds no numbers. What a load would take is said by plan_load(...).")
            object.__setattr__(self, "device", device)
        if self.quantize is not None and self.dequantize:
            raise QuantizedTensorError("dequantize=True and an argument that packs the weights exclude each other.")


def refuse_absent_device(request: Request) -> None:
    """Raises for a device that is not here; a plan does not need it, a load does.

    Raises:
        DeviceError: It is not here.
    """
    reason = None if request.device is None else why_not_here(device_from(request.device))
    if reason is not None:
        raise DeviceError(f"{reason}\n  plan_load(...) says what the load would take there.")


def requested_dtype(dtype: str | torch.dtype) -> torch.dtype | None:
    """Returns the dtype asked for, None for "auto".

    Raises:
        ValueError: There is no such dtype, or it is not one that models compute in.
    """
    return None if isinstance(dtype, str) and dtype.strip().lower() == "auto" else dtype_from(dtype)


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


# Arguments of transformers' from_pretrained, and what does here what they do there.
_OF_TRANSFORMERS: Mapping[str, str] = {
    "attn_implementation": "nothing to set: attention is fused where no hook looks at scores or pattern",
    "config": "hf_model=, or HookedTransformer(cfg) for a config of one's own",
    "device_map": "device=, and n_devices= for several GPUs",
    "force_download": "`hf download <repository> --force-download`",
    "ignore_mismatched_sizes": "nothing: a checkpoint that does not fit its config is refused",
    "key_mapping": "from_state_dict, with the names changed",
    "max_memory": "plan_load(...), which says what fits, and device= or n_devices=",
    "offload_buffers": "plan_load(...), which says what fits",
    "offload_folder": "plan_load(...), which says what fits; files are mapped, not read",
    "offload_state_dict": "plan_load(...), which says what fits",
    "output_attentions": 'run_with_cache, and cache["pattern", layer]',
    "output_hidden_states": 'run_with_cache, and cache["resid_post", layer]',
    "output_loading_info": "model.load_report",
    "pretrained_model_name_or_path": "model_name=",
    "proxies": "the environment variables HTTPS_PROXY and HTTP_PROXY",
    "resume_download": "nothing: downloads are resumed",
    "state_dict": "from_state_dict",
    "use_auth_token": "token=",
    "use_cache": "generate(use_past_kv_cache=), or forward(past_kv_cache=)",
    "use_flash_attention_2": "nothing to set: attention is fused where no hook looks at scores or pattern",
    "use_safetensors": "nothing to set: safetensors files are taken where there are any",
    "variant": "a folder that holds that variant's files under their plain names",
    "weights_only": "nothing to set: no file of weights ever runs code",
}


def refuse_unknown_arguments(kwargs: Mapping[str, Any], known: Collection[str] = ()) -> None:
    """Raises for arguments that mean nothing here, rather than ignore them.

    Args:
        kwargs: What was given beyond the arguments of the signature.
        known: The names of those; the nearest is proposed for one that is misspelt.

    Raises:
        TypeError: One is not known.
    """
    if "low_cpu_mem_usage" in kwargs:
        warnings.warn("low_cpu_mem_usage has no effect: every load is frugal.", stacklevel=3)
    unknown = [name for name in kwargs if name != "low_cpu_mem_usage"]
    if unknown:
        unknown.sort()
        hints = [f"\n  {name}{hint}" for name in unknown if (hint := _instead(name, known))]
        raise TypeError(f"from_pretrained() got arguments that it does not know: {', '.join(unknown)}.{''.join(hints)}")


def _instead(name: str, known: Collection[str]) -> str:
    """Says what to write for an argument that is not known."""
    if name in _OF_TRANSFORMERS:
        return f" is an argument of transformers; here it is {_OF_TRANSFORMERS[name]}"
    nearest = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {nearest[0]}?" if nearest else ""
