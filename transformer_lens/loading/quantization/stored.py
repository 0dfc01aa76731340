"""Packed matrices of a checkpoint: each is found among the tensors that a file holds for it, and checked.

A 4-bit matrix ``W`` lies there as ``W`` (its bytes), ``W.absmax``, ``W.quant_map``, ``W.quant_state.bitsandbytes__nf4``
(a JSON text) and, where scales are packed, ``W.nested_absmax`` and ``W.nested_quant_map``; an 8-bit one as
``M.weight``, ``M.SCB`` and ``M.weight_format``. Source: measured on what transformers saves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from transformer_lens.loading.errors import CorruptCheckpointError, QuantizedTensorError
from transformer_lens.loading.quantization.beside import ENTRIES
from transformer_lens.loading.quantization.eight_bit import Packed8bit
from transformer_lens.loading.quantization.four_bit import NestedScales, Packed4bit
from transformer_lens.loading.quantization.packed import Compute, Packed, Packing
from transformer_lens.loading.quantization.promises import packed_promise
from transformer_lens.loading.quantization.settings import NUMBERS, Settings
from transformer_lens.loading.sources.json_files import parse_object
from transformer_lens.loading.weights import LazyTensor, Weights, element_size

_STATE = ".quant_state.bitsandbytes__"
_KINDS = ("nf4", "fp4")
_PARTS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
_BLOCKSIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
_LONGEST_STATE = 4096


def with_packed_matrices(weights: Weights, settings: Settings, label: str) -> Weights:
    """Returns a checkpoint's tensors with each packed matrix as one promise, its statistics inside it.

    Args:
        weights: By the names in the file.
        settings: Of the checkpoint's ``quantization_config``.
        label: Names the checkpoint in messages.

    Raises:
        CorruptCheckpointError: The tensors of a matrix do not fit each other.
        QuantizedTensorError: A matrix is packed in an order that is not known.
    """
    taken: set[str] = set()
    changes: dict[str, LazyTensor] = {}
    for key, tensor in weights.items():
        if _STATE in key:
            matrix, _, kind = key.partition(_STATE)
            names = {part: f"{matrix}.{part}" for part in _PARTS if f"{matrix}.{part}" in weights}
            changes[matrix] = _four_bit(matrix, kind, key, names, weights, settings, label)
            taken |= {key, *names.values()}
        elif key.endswith(".SCB"):
            module = key.removesuffix(".SCB")
            order = weights.get(f"{module}.weight_format")
            changes[f"{module}.weight"] = _eight_bit(f"{module}.weight", tensor, order, weights, settings, label)
            taken |= {key, f"{module}.weight_format"}
    kept = {name: changes.get(name, tensor) for name, tensor in weights.items() if name not in taken}
    return Weights(kept)


def _four_bit(
    matrix: str, kind: str, state_key: str, names: Mapping[str, str], weights: Weights, settings: Settings, label: str
) -> LazyTensor:
    def fail(fact: str) -> CorruptCheckpointError:
        return CorruptCheckpointError(
            f"{matrix} of {label} is packed in 4 bits, and {fact}.\n  are these files of one checkpoint?"
        )

    if matrix not in weights:
        raise fail(f"{state_key!r} describes it, but it is not there")
    if kind not in _KINDS:
        raise QuantizedTensorError(f"{matrix} of {label} is packed as {kind!r}; {' and '.join(_KINDS)} are known.")
    missing = [part for part in ("absmax", "quant_map") if part not in names]
    if missing:
        raise fail(f"lacks its {' and '.join(missing)}")
    if weights[state_key].nbytes > _LONGEST_STATE or weights[state_key].dtype != torch.uint8:
        raise fail(f"{state_key!r} is no short text")
    try:
        state = parse_object(bytes(weights[state_key].make().reshape(-1).tolist()))
    except ValueError as fact:
        raise fail(f"{state_key!r} cannot be read: {fact}") from None
    data, absmax, code = weights[matrix], weights[names["absmax"]], weights[names["quant_map"]]
    shape, blocksize, dtype = _shape(state), state.get("blocksize"), NUMBERS.get(str(state.get("dtype")))
    if shape is None or blocksize not in _BLOCKSIZES or dtype is None or state.get("quant_type") != kind:
        raise fail(f"its state says {_short(state)}")
    count = math.prod(shape)
    blocks = -(-count // blocksize)
    if data.nbytes != (count + 1) // 2:
        raise fail(f"has {data.nbytes} bytes, where {shape[0]} x {shape[1]} numbers have {(count + 1) // 2}")
    if absmax.numel != blocks:
        raise fail(f"has {absmax.numel} scales, where {shape[0]} x {shape[1]} numbers have {blocks} blocks")
    # bitsandbytes 0.49 and later save the order of their CPU kernel's scales after a forward pass.
    by_column = shape[1] % blocksize == 0 and absmax.shape == (shape[1] // blocksize, shape[0])
    if not by_column and max(absmax.shape, default=1) != blocks:
        raise fail(f"its scales have the shape {absmax.shape}, and nothing says in which order they are")
    if code.shape != (16,) or code.dtype != torch.float32:
        raise fail(f"its table has the shape {code.shape}, in {code.dtype}, not 16 of float32")
    nested = "nested_absmax" in names
    if nested:
        group = state.get("nested_blocksize")
        own, table = weights[names["nested_absmax"]], weights.get(names.get("nested_quant_map", ""))
        offset = state.get("nested_offset")
        if group not in _BLOCKSIZES or not isinstance(offset, (int, float)):
            raise fail(f"its state says {_short(state)}")
        if table is None or table.shape != (256,) or own.numel != -(-blocks // group) or absmax.dtype != torch.uint8:
            raise fail("its nested scales do not fit their table")
        if table.dtype != torch.float32 or not own.dtype.is_floating_point or max(own.shape, default=1) != own.numel:
            raise fail(f"its nested scales are {own.shape} in {own.dtype}, their table is in {table.dtype}")
        if max(absmax.shape, default=1) != blocks:
            raise fail(f"its nested scales have the shape {absmax.shape}, and nothing says in which order they are")
    elif not absmax.dtype.is_floating_point:
        raise fail(f"its scales are {absmax.dtype}, and nothing says how they are packed")
    dtypes = (dtype, NUMBERS.get(str(state.get("nested_dtype")), torch.float32))

    def make() -> Packed4bit:
        scales = (absmax.make().t() if by_column else absmax.make()).reshape(-1)
        found = None
        if nested:
            own = weights[names["nested_absmax"]].make().reshape(-1).float()
            table = weights[names["nested_quant_map"]].make()
            offset = torch.tensor(float(state["nested_offset"]), dtype=torch.float32)
            found = NestedScales(own, table, int(state["nested_blocksize"]), offset, dtypes[1])
        return Packed4bit(
            shape, data.make(), scales if nested else scales.float(), code.make(), blocksize, kind, dtypes[0], found
        )

    parts = [weights[name] for name in (matrix, *names.values())]
    packing = Packing(
        kind,
        Compute(shape, settings.bnb_4bit_compute_dtype),
        sum(part.nbytes for part in parts),
        blocksize,
        nested,
        element_size(data.dtype),
        dtypes[0],
        make,
    )
    return packed_promise(packing, data.dtype, data.held, data.origin, data.device)


def _eight_bit(
    matrix: str, scales: LazyTensor, order: LazyTensor | None, weights: Weights, settings: Settings, label: str
) -> LazyTensor:
    data = weights.get(matrix)
    if data is None or data.dtype != torch.int8 or len(data.shape) != 2 or scales.numel != data.shape[0]:
        raise CorruptCheckpointError(
            f"{matrix} of {label} has {scales.numel} scales of rows, and is "
            f"{'not there' if data is None else f'{data.shape} in {str(data.dtype)[6:]}'}: an 8-bit matrix has a "
            "scale a row.\n  are these files of one checkpoint?"
        )
    if order is not None and int(order.make()) != 0:
        raise QuantizedTensorError(
            f"{matrix} of {label} is packed in the order {int(order.make())} of a GPU kernel; only rows one behind "
            "the other are known.\n  load and save it once with a bitsandbytes of at least 0.45."
        )
    shape = (data.shape[0], data.shape[1])
    make = partial(_made_8bit, shape, data, scales)
    packing = Packing(
        "int8",
        Compute(shape, None, settings.llm_int8_threshold),
        data.nbytes + scales.nbytes,
        0,
        False,
        1,
        torch.float32,
        make,
    )
    return packed_promise(packing, data.dtype, data.held, data.origin, data.device)


def _made_8bit(shape: tuple[int, int], data: LazyTensor, scales: LazyTensor) -> Packed8bit:
    return Packed8bit(shape, data.make(), scales.make().float().reshape(-1))


def _shape(state: Mapping[str, Any]) -> tuple[int, int] | None:
    shape = state.get("shape")
    if (
        not isinstance(shape, list)
        or len(shape) != 2
        or not all(type(size) is int and 0 < size < 1 << 40 for size in shape)
    ):
        return None
    return shape[0], shape[1]


def _short(state: Mapping[str, Any]) -> str:
    return str(dict(state))[:200]


def entries_of(state_dict: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Returns the statistics that a state dict of ours holds of a parameter, by their last names; empty for numbers."""
    found = {key[len(name) + 1 :]: value for key, value in state_dict.items() if key.startswith(f"{name}.")}
    is_packed = "SCB" in found or any(f".{part}".startswith(_STATE) for part in found)
    return found if is_packed else {}


def packed_from_entries(data: Tensor, entries: Mapping[str, Tensor], label: str) -> Packed:
    """Returns the packed matrix that a state dict of ours holds.

    Args:
        data: Its bytes.
        entries: Its statistics, by their last names.
        label: What messages call it.

    Raises:
        CorruptCheckpointError: They do not fit each other.
    """
    tensors = {
        "m.weight" if "SCB" in entries else "m": data,
        **{f"m.{part}": value for part, value in entries.items() if part not in ENTRIES},
    }
    settings = Settings(load_in_8bit="SCB" in entries, load_in_4bit="SCB" not in entries)
    (promise,) = with_packed_matrices(Weights.from_state_dict(tensors), settings, label).values()
    assert promise.packed is not None
    return promise.packed.make()
