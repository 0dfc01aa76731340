"""Which library has packed a checkpoint: told by ``config.json``, before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformer_lens.loading.errors import QuantizedTensorError
from transformer_lens.loading.weights import Weights

BITSANDBYTES = "bitsandbytes"
FP8 = "fp8"
# Fields of config.json that say how weights are packed, and nothing of the model.
PACKING_FIELDS = ("quantization_config", "compression_config")
_BLOCK_SCALES = "_scale_inv"
_SCALES = (_BLOCK_SCALES, "_scale")
# Methods that transformers can undo while it loads, each with the class of config and the argument that says so.
UNDONE_BY_TRANSFORMERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    FP8: ("FineGrainedFP8Config", {"dequantize": True}),
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


def refuse_wrong_scales(method: str, weights: Weights, config: Mapping[str, Any], label: str) -> None:
    """Raises where transformers would multiply by scales that are not the matrix's.

    It makes up the scales of float8 numbers that have none, and divides an fp8 matrix evenly among its blocks, which is
    wrong where the last ones are cut by its end.

    Args:
        method: One of those that transformers can undo.
        weights: Of the checkpoint; headers are enough.
        config: Its config.json.
        label: What messages call it.

    Raises:
        QuantizedTensorError: There is such a matrix.
    """
    for name, tensor in weights.items():
        if "float8" not in str(tensor.dtype) or name.endswith(_SCALES):
            continue
        if not any(name + ending in weights for ending in _SCALES):
            raise QuantizedTensorError(
                f"{label} stores {name} in {str(tensor.dtype)[6:]} without scales: there is no {name}_scale_inv and no "
                f"{name}_scale.\n  Its numbers mean nothing without. Is the download complete?"
            )
    if method == FP8:
        _refuse_cut_blocks(weights, config, label)


def _refuse_cut_blocks(weights: Weights, config: Mapping[str, Any], label: str) -> None:
    block = config["quantization_config"].get("weight_block_size")
    if not isinstance(block, list) or len(block) != 2:
        return
    for name, scales in weights.items():
        matrix = weights.get(name.removesuffix(_BLOCK_SCALES)) if name.endswith(_BLOCK_SCALES) else None
        if matrix is None or len(matrix.shape) != len(scales.shape) or len(scales.shape) != 2:
            continue
        if any(count > 1 and size != count * each for size, count, each in zip(matrix.shape, scales.shape, block)):
            raise QuantizedTensorError(
                f"{label} is packed by fp8 in blocks of {block[0]} x {block[1]}, and the last ones of "
                f"{name.removesuffix(_BLOCK_SCALES)} {matrix.shape} are cut by its end: transformers would take wrong "
                "scales.\n  Load an unpacked checkpoint of the same model."
            )
