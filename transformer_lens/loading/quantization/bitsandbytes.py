"""The only importer of bitsandbytes: its parameters made of packed matrices and read as such, and its products.

Its modules are never run. On CPUs with AVX512-BF16, ``Linear4bit.forward`` rewrites the weight that it multiplies by,
and the weight's state, in place; the functions that are called here do not.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from typing import Any

import torch
from packaging.version import Version
from torch import Tensor, nn

from transformer_lens.loading.errors import QuantizedTensorError
from transformer_lens.loading.quantization.eight_bit import Packed8bit
from transformer_lens.loading.quantization.four_bit import NestedScales, Packed4bit
from transformer_lens.loading.quantization.packed import Compute, Packed, Packing
from transformer_lens.loading.quantization.settings import Settings
from transformer_lens.loading.weights import bytes_of

# The first release seen to quantize and to multiply on a CPU.
_FIRST_ON_CPU = Version("0.46.1")
_PACKED_TYPES = {"Params4bit": "4bit", "Int8Params": "8bit"}
# What is made anew for a parameter, rather than taken over.
_OWN = frozenset(["quant_state", "module", "CB", "SCB", "_packed_for_cpu"])
# Rows and bytes that the CPU kernel of bitsandbytes 0.49 and later weaves into each other.
_WOVEN = 32


def version() -> str | None:
    """Returns the version that is installed, or None."""
    try:
        return metadata.version("bitsandbytes")
    except metadata.PackageNotFoundError:
        return None


def require(device: torch.device, label: str) -> None:
    """Raises where packed weights could not be multiplied on a device, before anything is loaded.

    Raises:
        QuantizedTensorError: bitsandbytes is not installed, or too old for this device.
    """
    found = version()
    if found is None:
        raise QuantizedTensorError(
            f"{label} is to be packed by bitsandbytes, which is not installed: pip install "
            "'transformer-lens[bitsandbytes]'.\n  dequantize=True loads packed weights as numbers, without it."
        )
    if not multiplies_on(device):
        raise QuantizedTensorError(
            f"{label} is to be packed by bitsandbytes, and {found} cannot multiply on a CPU: that came with "
            f"{_FIRST_ON_CPU}.\n  Install a newer one (which may take a newer torch), load on device='cuda', or load "
            "packed weights as numbers with dequantize=True."
        )


def multiplies_on(device: torch.device) -> bool:
    """Whether packed weights could be multiplied on a device."""
    found = version()
    return found is not None and (device.type != "cpu" or Version(found) >= _FIRST_ON_CPU)


@cache
def _library() -> Any:
    import bitsandbytes

    return bitsandbytes


def packed_type(tensor: Tensor) -> str | None:
    """Returns "4bit" or "8bit" for a parameter of bitsandbytes, None for any other tensor."""
    for kind in type(tensor).__mro__:
        if kind.__module__.startswith("bitsandbytes."):
            return _PACKED_TYPES.get(kind.__name__)
    return None


def as_parameter(packed: Packed) -> nn.Parameter:
    """Returns bitsandbytes' parameter over the tensors of a packed matrix: nothing is copied.

    Its statistics are objects of its own, so that what is done to them elsewhere is not done to it.
    """
    if isinstance(packed, Packed4bit):
        nested = packed.nested
        functional, kinds = _library().functional, _library().nn
        second = None
        if nested is not None:
            second = functional.QuantState(
                absmax=nested.absmax, code=nested.code, blocksize=nested.blocksize, dtype=nested.dtype
            )
        state = functional.QuantState(
            absmax=packed.absmax,
            shape=torch.Size(packed.shape),
            code=packed.code,
            blocksize=packed.blocksize,
            quant_type=packed.quant_type,
            dtype=packed.dtype,
            offset=None if nested is None else nested.offset,
            state2=second,
        )
        out: nn.Parameter = kinds.Params4bit(
            packed.data.detach(),
            requires_grad=False,
            quant_state=state,
            blocksize=packed.blocksize,
            compress_statistics=nested is not None,
            quant_type=packed.quant_type,
            quant_storage=packed.data.dtype,
            bnb_quantized=True,
        )
    else:
        assert isinstance(packed, Packed8bit)
        data, has_numbers = packed.data.detach(), packed.scales is None
        out = _library().nn.Int8Params(
            data,
            requires_grad=False,
            has_fp16_weights=has_numbers,
            CB=None if has_numbers else data,
            SCB=packed.scales,
        )
    vars(out).update(packed.attributes)
    return out


def packed_of(parameter: Tensor, statistics: Mapping[str, Any] | None = None) -> Packed:
    """Returns what a parameter of bitsandbytes holds, sharing its tensors.

    Args:
        parameter: 4-bit or 8-bit, packed.
        statistics: What its module keeps of it: "SCB" after the module's first product.
    """
    attributes = {name: value for name, value in vars(parameter).items() if name not in _OWN}
    if packed_type(parameter) == "8bit":
        scales = vars(parameter).get("SCB")
        if scales is None:
            scales = (statistics or {}).get("SCB")
        data = parameter.detach().as_subclass(Tensor)
        if data.dtype != torch.int8:
            scales = None
        scales = None if scales is None else scales.reshape(-1)
        return Packed8bit((data.shape[0], data.shape[1]), data, scales, attributes=attributes)
    state = vars(parameter)["quant_state"]
    data = parameter.detach().as_subclass(Tensor)
    if vars(state).get("packing_format_for_cpu", False):
        data, absmax, dtype = _unwoven(data, state)
        attributes["compress_statistics"] = False
        attributes["quant_storage"] = data.dtype
        nested = None
    else:
        absmax, dtype = state.absmax.reshape(-1), state.dtype
        second = vars(state).get("state2")
        nested = None if second is None else NestedScales(
            second.absmax.reshape(-1), second.code, second.blocksize, state.offset, second.dtype
        )  # fmt: skip
    shape = (int(state.shape[0]), int(state.shape[1]))
    return Packed4bit(
        shape, data, absmax, state.code, state.blocksize, state.quant_type, dtype, nested, attributes=attributes
    )


def is_woven(parameter: Tensor) -> bool:
    """Whether bitsandbytes' own module has rewritten a 4-bit parameter for its CPU kernel, rounding its scales."""
    state = vars(parameter).get("quant_state")
    return state is not None and bool(vars(state).get("packing_format_for_cpu", False))


def _unwoven(data: Tensor, state: Any) -> tuple[Tensor, Tensor, torch.dtype]:
    """Returns the bytes and scales of a matrix in the order in which they are kept, from that of the CPU kernel.

    There, bytes run over groups of 32 rows, then pairs of columns; the low halves of 32 of them hold the first 32 of
    64 numbers (two columns of 32 rows), the high halves the others.
    """
    rows, columns = state.shape
    woven = data.reshape(-1, _WOVEN)
    numbers = torch.cat([woven & 15, woven >> 4], dim=1)
    by_group = numbers.view(rows // _WOVEN, columns // 2, _WOVEN, 2).transpose(1, 2)
    stored = (by_group[..., 0] << 4 | by_group[..., 1]).reshape(-1, 1)
    stored = stored.view(vars(state).get("original_storage_type", torch.uint8))
    return stored, state.absmax.t().reshape(-1).float(), vars(state).get("original_dtype", state.dtype)


def packing_of(parameter: Tensor, module: nn.Module | None) -> Packing | None:
    """Returns how a live model's parameter is packed; None for one that holds numbers.

    Args:
        parameter: Of bitsandbytes or not.
        module: The module that it is of: it knows how the matrix is multiplied.
    """
    kind = packed_type(parameter)
    if kind is None or (kind == "4bit" and vars(parameter)["quant_state"] is None):
        return None
    state = None if module is None else vars(module).get("state")
    statistics = {} if state is None else {"SCB": state.SCB}
    packed = packed_of(parameter, statistics) if kind == "8bit" or not is_woven(parameter) else None
    if isinstance(packed, Packed8bit):
        numbers = packed.scales is None
        if numbers and not vars(parameter)["has_fp16_weights"]:
            if packed.data.dtype == torch.int8:
                raise QuantizedTensorError("an 8-bit weight has lost its scales (SCB): load the model again.")
            return None
        return Packing(
            "int8",
            Compute(packed.shape, None, 0.0 if state is None else float(state.threshold)),
            sum(bytes_of(tensor) for tensor in (packed.data, packed.scales) if tensor is not None),
            0,
            False,
            1,
            packed.data.dtype if numbers else torch.float32,
            lambda: packed_of(parameter, statistics),
        )
    of = vars(parameter)["quant_state"]
    compute = None if module is None else vars(module).get("compute_dtype")
    nested = isinstance(packed, Packed4bit) and packed.nested is not None
    return Packing(
        of.quant_type,
        Compute((int(of.shape[0]), int(of.shape[1])), compute),
        sum(map(bytes_of, (parameter, of.absmax, of.code, *([of.state2.absmax] if nested else ())))),
        of.blocksize,
        nested,
        parameter.element_size(),
        vars(of).get("original_dtype", of.dtype),
        lambda: packed_of(parameter, statistics),
    )


def quantized(matrix: Tensor, settings: Settings) -> Packed:
    """Packs a matrix [rows columns] as transformers would; it is left as it is."""
    if settings.load_in_4bit:
        data, state = _library().functional.quantize_4bit(
            matrix.contiguous(),
            blocksize=settings.blocksize,
            compress_statistics=settings.bnb_4bit_use_double_quant,
            quant_type=settings.bnb_4bit_quant_type,
            quant_storage=settings.bnb_4bit_quant_storage,
        )
        nested = None
        if state.nested:
            second = state.state2
            nested = NestedScales(second.absmax, second.code, second.blocksize, state.offset, second.dtype)
        shape = (matrix.shape[0], matrix.shape[1])
        return Packed4bit(shape, data, state.absmax, state.code, state.blocksize, state.quant_type, state.dtype, nested)
    shape = (matrix.shape[0], matrix.shape[1])
    if settings.llm_int8_has_fp16_weight:
        return Packed8bit(shape, matrix.contiguous(), None)
    data, scales, _ = _library().functional.int8_vectorwise_quant(matrix.to(torch.float16).contiguous())
    return Packed8bit(shape, data, scales)


def state_entries(parameter: Tensor) -> dict[str, Tensor]:
    """Returns the statistics of a parameter under the names that bitsandbytes saves them by."""
    if packed_type(parameter) == "4bit":
        packed = packed_of(parameter)
        entries: dict[str, Tensor] = vars(as_parameter(packed))["quant_state"].as_dict(packed=True)
        return entries
    scales = vars(parameter).get("SCB")
    return {} if scales is None else {"SCB": scales}


def product(x: Tensor, parameter: Tensor, bias: Tensor | None, compute: Compute) -> Tensor:
    """Returns ``x W^T + bias`` as bitsandbytes' modules compute it; gradients flow to `x` and `bias`.

    Args:
        x: Activations [tokens columns].
        parameter: W, packed [rows columns].
        bias: [rows], or None.
        compute: How it is multiplied.
    """
    if packed_type(parameter) == "8bit":
        return _product_8bit(x, parameter, bias, compute)
    dtype = x.dtype if compute.dtype is None else compute.dtype
    state = vars(parameter)["quant_state"]
    out: Tensor
    if bias is not None:
        bias = bias.to(dtype)
    if x.device.type == "cpu" and compute.shape[1] % state.blocksize:
        out = _UnpackedProduct.apply(x.to(dtype), parameter)  # type: ignore[no-untyped-call]
        return (out if bias is None else out + bias).to(x.dtype)
    out = _library().matmul_4bit(x.to(dtype), parameter.t(), bias=bias, quant_state=state)
    return out.to(x.dtype)


class _UnpackedProduct(torch.autograd.Function):
    """``x W^T`` by our own numbers of W, where rows end inside blocks of scales.

    bitsandbytes' CPU kernels (0.50.2) begin each row with a new scale, and so give wrong numbers there.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, parameter: Tensor) -> Tensor:
        """Multiplies, and remembers the packed matrix alone."""
        ctx.parameter = parameter
        return x @ packed_of(parameter).dequantized().to(x.dtype).t()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Returns the gradient of `x`; a packed matrix has none."""
        return gradient @ packed_of(ctx.parameter).dequantized().to(gradient.dtype), None


def _product_8bit(x: Tensor, parameter: Tensor, bias: Tensor | None, compute: Compute) -> Tensor:
    attributes = vars(parameter)
    state = _library().MatmulLtState()
    state.threshold = compute.threshold
    state.has_fp16_weights = attributes["has_fp16_weights"]
    state.is_training = False
    state.CB, state.SCB = attributes["CB"], attributes["SCB"]
    if bias is not None:
        bias = bias.to(x.dtype)
    with _silent():
        out: Tensor = _library().matmul(x, parameter, bias=bias, state=state)
    return out


class _Casts(logging.Filter):
    """Drops what bitsandbytes says of each 8-bit product of activations that are not float16."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is shown."""
        return "inputs will be cast from" not in record.getMessage()


@contextmanager
def _silent() -> Iterator[None]:
    logger, casts = logging.getLogger("bitsandbytes.autograd._functions"), _Casts()
    logger.addFilter(casts)
    try:
        yield
    finally:
        logger.removeFilter(casts)


def restored(parameter: nn.Parameter) -> nn.Parameter:
    """Returns a parameter of bitsandbytes for one that pickling has made a plain one of; any other as it is."""
    attributes = vars(parameter)
    if packed_type(parameter) is not None or not ({"quant_state", "SCB"} & set(attributes)):
        return parameter
    kinds = _library().nn
    kind = kinds.Params4bit if "quant_state" in attributes else kinds.Int8Params
    out: nn.Parameter = torch.Tensor._make_subclass(kind, parameter.detach(), False)
    vars(out).update(copy.copy(attributes))
    return out
