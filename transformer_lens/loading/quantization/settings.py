"""What a quantization config asks for: read as data, whoever wrote it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

import torch

from transformer_lens.loading.errors import QuantizedTensorError

# By the names that checkpoints and configs give them: what is unpacked to, and what bytes may be held in as well.
NUMBERS: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
_DTYPES: Mapping[str, torch.dtype] = {**NUMBERS, "uint8": torch.uint8, "int8": torch.int8}
_BLOCKSIZE = 64
# Arguments of transformers 4's from_pretrained that stood for a config.
ARGUMENTS = ("quantization_config", "load_in_4bit", "load_in_8bit")


@dataclass(frozen=True)
class Settings:
    """A ``BitsAndBytesConfig`` as data; names and defaults are those of transformers.

    The default of "fp4" says how a checkpoint is packed whose config leaves it out. What ``load_in_4bit=True`` alone
    asks for is nf4 (:func:`requested`), which is nearer to the float model at the same size.

    Attributes:
        load_in_4bit: Whether matrices have 4 bits.
        load_in_8bit: Whether they have 8.
        llm_int8_threshold: Magnitude from which a column of activations is multiplied in half precision.
        llm_int8_skip_modules: Modules whose weight stays float, in place of the output head; None for that.
        llm_int8_has_fp16_weight: Whether 8-bit matrices are kept as numbers, and packed for each product.
        bnb_4bit_compute_dtype: Dtype of products.
        bnb_4bit_quant_type: "fp4" or "nf4".
        bnb_4bit_use_double_quant: Whether scales are packed too.
        bnb_4bit_quant_storage: Dtype of the tensor that holds the bytes.
    """

    load_in_4bit: bool = False
    load_in_8bit: bool = False
    llm_int8_threshold: float = 6.0
    llm_int8_skip_modules: tuple[str, ...] | None = None
    llm_int8_has_fp16_weight: bool = False
    bnb_4bit_compute_dtype: torch.dtype = torch.float32
    bnb_4bit_quant_type: str = "fp4"
    bnb_4bit_use_double_quant: bool = False
    bnb_4bit_quant_storage: torch.dtype = torch.uint8

    @property
    def kind(self) -> str:
        """How matrices are packed: "nf4", "fp4" or "int8"."""
        return self.bnb_4bit_quant_type if self.load_in_4bit else "int8"

    @property
    def blocksize(self) -> int:
        """Numbers that share a scale; 0 for scales by row."""
        return _BLOCKSIZE if self.load_in_4bit else 0

    def __str__(self) -> str:
        if not self.load_in_4bit:
            rows = "kept as numbers, packed for each product" if self.llm_int8_has_fp16_weight else "scales by row"
            return f"int8, {rows}, outliers from {self.llm_int8_threshold:g}"
        nested = ", nested scales" if self.bnb_4bit_use_double_quant else ""
        return f"{self.kind}{nested}, products in {str(self.bnb_4bit_compute_dtype)[6:]}"

    def skips(self, module: str, is_head: bool) -> bool:
        """Whether a module's weight stays float, by transformers' rules.

        Args:
            module: Its name in the transformers model.
            is_head: Whether it makes the logits: it stays float unless `llm_int8_skip_modules` says what does.
        """
        if self.llm_int8_skip_modules is None:
            return is_head
        boundary = r"(?:(?<=\.)|(?=\.|$))"
        return any(
            re.match(f"(?:{pattern}){boundary}", module) is not None or module.endswith(pattern)
            for pattern in self.llm_int8_skip_modules
        )


def settings_of(config: Any, label: str = "quantization_config") -> Settings:
    """Returns the settings of a ``BitsAndBytesConfig``, or of its dict.

    Args:
        config: As transformers makes it, or as ``config.json`` holds it.
        label: What messages call it.

    Raises:
        QuantizedTensorError: It is of another method, or asks for what cannot be.
    """
    if not isinstance(config, Mapping):
        to_dict = vars(type(config)).get("to_dict") or next(
            (vars(base)["to_dict"] for base in type(config).__mro__ if "to_dict" in vars(base)), None
        )
        if to_dict is None:
            raise QuantizedTensorError(f"{label} is a {type(config).__name__}, not a BitsAndBytesConfig or its dict.")
        config = to_dict(config)
    method = config.get("quant_method", "bitsandbytes")
    if str(method.value if isinstance(method, Enum) else method) not in (
        "bitsandbytes",
        "bitsandbytes_4bit",
        "bitsandbytes_8bit",
    ):
        raise QuantizedTensorError(f"{label} asks for {method}: bitsandbytes is what weights can be packed with here.")
    known = {name.name for name in fields(Settings)}
    values = {name: value for name, value in config.items() if name in known and value is not None}
    # As transformers writes them into config.json.
    values.setdefault("load_in_4bit", bool(config.get("_load_in_4bit", False)))
    values.setdefault("load_in_8bit", bool(config.get("_load_in_8bit", False)))
    for name in ("bnb_4bit_compute_dtype", "bnb_4bit_quant_storage"):
        if name in values:
            values[name] = _dtype(values[name], name, label)
    if "llm_int8_skip_modules" in values:
        values["llm_int8_skip_modules"] = tuple(map(str, values["llm_int8_skip_modules"]))
    out = Settings(**values)
    if out.load_in_4bit == out.load_in_8bit:
        raise QuantizedTensorError(f"{label} has to set one of load_in_4bit and load_in_8bit.")
    if out.load_in_4bit and out.bnb_4bit_quant_type not in ("fp4", "nf4"):
        raise QuantizedTensorError(f"{label} has bnb_4bit_quant_type = {out.bnb_4bit_quant_type!r}; fp4 and nf4 exist.")
    return out


def requested(config: Any, load_in_4bit: bool | None, load_in_8bit: bool | None) -> Settings | None:
    """Returns what the arguments of ``from_pretrained`` ask for; None where they ask for float weights.

    Raises:
        QuantizedTensorError: They contradict each other.
    """
    if config is not None:
        settings = settings_of(config)
        if (load_in_4bit and not settings.load_in_4bit) or (load_in_8bit and not settings.load_in_8bit):
            raise QuantizedTensorError("load_in_4bit or load_in_8bit says another thing than quantization_config.")
        return settings
    if load_in_4bit or load_in_8bit:
        asked = {"load_in_4bit": bool(load_in_4bit), "load_in_8bit": bool(load_in_8bit), "bnb_4bit_quant_type": "nf4"}
        return settings_of(asked, "from_pretrained")
    return None


def _dtype(value: Any, name: str, label: str) -> torch.dtype:
    if isinstance(value, torch.dtype):
        return value
    found = _DTYPES.get(str(value).removeprefix("torch."))
    if found is None:
        raise QuantizedTensorError(f"{label} has {name} = {value!r}, which is no dtype that it could be.")
    return found
