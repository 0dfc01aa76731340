"""Dtypes by name."""

from __future__ import annotations

import torch

DTYPE_FROM_STRING: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "float16": torch.float16,
    "fp16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
}
_ALSO = {"float64": torch.float64, "fp64": torch.float64, "float": torch.float32, "half": torch.float16}


def dtype_from(value: str | torch.dtype) -> torch.dtype:
    """Returns the dtype that a name ("float32", "bf16", "torch.float16") means, or `value` if it is one.

    Raises:
        ValueError: The name means no dtype.
    """
    if isinstance(value, torch.dtype):
        return value
    name = value[len("torch.") :] if value.startswith("torch.") else value
    known = {**DTYPE_FROM_STRING, **_ALSO}
    if name not in known:
        raise ValueError(
            f"dtype = {value!r} is not known; one of {sorted(DTYPE_FROM_STRING)}, 'auto', or a torch.dtype."
        )
    return known[name]
