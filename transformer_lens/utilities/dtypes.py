"""Dtypes by name."""

from __future__ import annotations

from typing import Any

import torch

DTYPE_FROM_STRING: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "float16": torch.float16,
    "fp16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
}
"""Upstream's names."""

_BY_NAME: dict[str, torch.dtype] = {
    **DTYPE_FROM_STRING,
    "float": torch.float32,
    "half": torch.float16,
    "float64": torch.float64,
    "fp64": torch.float64,
    "double": torch.float64,
}
COMPUTES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""What models compute in; torch has no products of its smaller floats."""


def dtype_from(value: Any) -> torch.dtype:
    """Returns the dtype that a name means, or `value` if it is one.

    Args:
        value: A dtype, or any name that torch has for one that models compute in ("half", "float16"), a short one
            ("fp16"), with or without "torch." in front.

    Raises:
        ValueError: Models do not compute in it, or it means no dtype.
    """
    found = value if isinstance(value, torch.dtype) else None
    if isinstance(value, str):
        found = _BY_NAME.get(value.strip().lower().removeprefix("torch."))
    if found in COMPUTES:
        return found
    hint = "; 'auto' takes the checkpoint's where something is loaded" if value is None else ""
    if "float8" in str(value) or "float4" in str(value):
        hint = "; 8 and 4 bits a weight are what load_in_8bit= and load_in_4bit= are for"
    raise ValueError(f"dtype = {value!r}: models compute in float16, bfloat16, float32 or float64{hint}.")
