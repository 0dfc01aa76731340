"""Which library has packed a checkpoint: told by ``config.json``, before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformer_lens.loading.errors import QuantizedTensorError

BITSANDBYTES = "bitsandbytes"
# Methods that transformers can undo while it loads, each with the class of config and the argument that says so.
UNDONE_BY_TRANSFORMERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "fp8": ("FineGrainedFP8Config", {"dequantize": True}),
    "mxfp4": ("Mxfp4Config", {"dequantize": True}),
    "compressed-tensors": ("CompressedTensorsConfig", {"run_compressed": False}),
}


def method_of(config: Mapping[str, Any], label: str) -> str | None:
    """Returns the method that a checkpoint is packed by, or None for plain weights.

    Raises:
        QuantizedTensorError: ``quantization_config`` does not say it.
    """
    quantization = config.get("quantization_config")
    if not quantization:
        # As llm-compressor has written it before transformers took it up.
        return "compressed-tensors" if config.get("compression_config") else None
    method = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
    if isinstance(quantization, Mapping) and method is None:
        if quantization.get("load_in_4bit") or quantization.get("load_in_8bit"):
            return BITSANDBYTES
    if not isinstance(method, str) or not method:
        raise QuantizedTensorError(
            f"{label} has a quantization_config in its config.json that names no quant_method:"
            f" {str(quantization)[:200]}\n  Load an unpacked checkpoint of the same model."
        )
    return BITSANDBYTES if method.startswith(BITSANDBYTES) else method


def refuse(method: str, label: str, dequantize: bool) -> None:
    """Raises for a method that neither we nor transformers can make numbers of, or that was not asked to be undone.

    Raises:
        QuantizedTensorError: Always, unless `dequantize` is set and transformers can undo the method.
    """
    if method in UNDONE_BY_TRANSFORMERS:
        if dequantize:
            return
        step = "dequantize=True loads it as numbers, through transformers; an unpacked checkpoint costs less memory."
    else:
        step = "transformers cannot turn it into numbers either: load an unpacked checkpoint of the same model."
    raise QuantizedTensorError(
        f"{label} holds weights packed by {method}: bitsandbytes' are the ones that are loaded packed."
        f" Nothing was read.\n  {step}\n  load_in_4bit=True packs an unpacked checkpoint while it is loaded."
    )
