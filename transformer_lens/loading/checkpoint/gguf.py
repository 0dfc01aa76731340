"""GGUF files as checkpoints: the only importer of the gguf package.

Names and config are brought to those of the Hugging Face checkpoint that the file was converted from. Numbers that are
not packed are mapped; packed ones become float32 by blocks of rows, tensor by tensor, when they are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transformer_lens.loading.checkpoint.checkpoint import Checkpoint
from transformer_lens.loading.checkpoint.gguf_config import config_of
from transformer_lens.loading.checkpoint.gguf_families import FREQUENCIES, Family, family_of
from transformer_lens.loading.checkpoint.gguf_header import GGUFHeader, GGUFTensor, read_gguf_header
from transformer_lens.loading.checkpoint.io import choose_io
from transformer_lens.loading.checkpoint.regions import Region
from transformer_lens.loading.errors import CorruptCheckpointError, LoadingError, QuantizedTensorError
from transformer_lens.loading.memory.fresh import empty
from transformer_lens.loading.sources.source import GGUFSource
from transformer_lens.loading.sources.whole_files import fetch_again
from transformer_lens.loading.weights import Held, LazyTensor, Origin, Weights, element_size

# The packings that are none: numbers as torch has them.
_PLAIN = {0: torch.float32, 1: torch.float16, 28: torch.float64, 30: torch.bfloat16}
_MOST_DIVISORS = 1 << 16
# Elements that are unpacked at a time: few enough to stay in a processor's cache.
_BLOCK = 1 << 18
_LAYER = re.compile(r"blk\.(\d+)\.(.+)\.(weight|bias)$")


@dataclass(frozen=True)
class _Packing:
    """How rows of numbers are packed, `per_block` of them in `nbytes` bytes."""

    name: str
    per_block: int
    nbytes: int
    kind: Any


def open_gguf(source: GGUFSource, skip: Callable[[str], bool] = lambda key: False, io: str = "auto") -> Checkpoint:
    """Returns the checkpoint in a GGUF file; its header is read, its tensors are not.

    Args:
        source: The file.
        skip: True for keys that are not wanted.
        io: "auto", "map" or "read".

    Raises:
        CorruptCheckpointError: The file is broken.
        UnsupportedArchitectureError: Its architecture is not one whose names are known here.
        QuantizedTensorError: The gguf package cannot unpack one of its packings.
        LoadingError: Its numbers are packed and the gguf package is not installed.
    """
    path = source.path
    header = read_gguf_header(path)
    family = family_of(header.fields, path)
    packings = {kind: _packing(kind, path) for kind in sorted({tensor.kind for tensor in header.tensors.values()})}
    spans = _spans(path, header, packings)
    for name in FREQUENCIES:
        if name in header.tensors and header.tensors[name].kind != 0:
            raise CorruptCheckpointError(f"{path}: {name} is not in float32, as divisors of frequencies are.")
        if name in header.tensors and spans[name] > _MOST_DIVISORS * 4:
            raise CorruptCheckpointError(
                f"{path}: {name} has the shape {header.tensors[name].shape}: one for each pair?"
            )
    frequencies = {
        name: Region(path, tensor.offset, tensor.shape, torch.float32, header.file_size).map().tolist()
        for name, tensor in header.tensors.items()
        if name in FREQUENCIES
    }
    config = config_of(family, header, frequencies, path)
    choice = choose_io(io, path)
    weights: dict[str, LazyTensor] = {}
    for name, tensor in header.tensors.items():
        if name in FREQUENCIES:
            continue
        key = _key(family, name, path)
        if key in weights:
            raise CorruptCheckpointError(f"{path} holds two tensors that are {key!r}.")
        if not skip(key):
            raw = Region(path, tensor.offset, (spans[name],), torch.uint8, header.file_size)
            heads = _permuted_heads(family, name, config)
            promise = _promise(key, tensor, raw, packings[tensor.kind], heads, choice.mode)
            weights[key] = _transposed(promise) if family.is_transposed(name) else promise
    return Checkpoint(source.label, source.kind, None, config, Weights(weights), choice, files=(path,))


def tensors_of_gguf(path: Path) -> list[tuple[str, str, tuple[int, ...], int]]:
    """Returns name, packing, shape and bytes of every tensor as the file has them, of any architecture.

    Raises:
        CorruptCheckpointError: The file is broken.
        LoadingError: Its numbers are packed and the gguf package is not installed.
    """
    header = read_gguf_header(path)
    packings = {kind: _packing(kind, path) for kind in sorted({tensor.kind for tensor in header.tensors.values()})}
    spans = _spans(path, header, packings)
    return [(name, packings[tensor.kind].name, tensor.shape, spans[name]) for name, tensor in header.tensors.items()]


def _packing(kind: int, path: Path) -> _Packing:
    """Returns a packing that can be unpacked here: it was tried on a block of zeros."""
    if kind in _PLAIN:
        return _Packing(str(_PLAIN[kind])[6:], 1, element_size(_PLAIN[kind]), None)
    try:
        import gguf
        from gguf.quants import dequantize
    except ImportError:
        raise LoadingError(
            f"{path.name} holds packed numbers: unpacking them takes the gguf package "
            "(pip install 'transformer-lens[gguf]')."
        ) from None
    import numpy

    try:
        known = gguf.GGMLQuantizationType(kind)
        per_block, nbytes = gguf.GGML_QUANT_SIZES[known]
    except (ValueError, KeyError):
        raise CorruptCheckpointError(f"{path}: a tensor is packed in the unknown way {kind}.") from None
    try:
        dequantize(numpy.zeros((1, nbytes), dtype=numpy.uint8), known)
    except NotImplementedError:
        raise QuantizedTensorError(
            f"{path}: tensors are packed as {known.name}, which this gguf package cannot unpack.\n"
            "  Update it, or take a file with another packing (Q8_0, Q4_K …) of the same model."
        ) from None
    return _Packing(known.name, per_block, nbytes, known)


def _spans(path: Path, header: GGUFHeader, packings: Mapping[int, _Packing]) -> dict[str, int]:
    """Returns the bytes of each tensor, by its packing.

    Tensors follow each other, each from the next multiple of the alignment, from the end of the header to that of the
    file: a packing that is smaller than the tensor's room is not the tensor's.
    """
    out: dict[str, int] = {}
    end, before = header.begin, "the header"
    for name, tensor in sorted(header.tensors.items(), key=lambda item: item[1].offset):
        packing = packings[tensor.kind]
        columns = tensor.shape[-1] if tensor.shape else 1
        rows = 1
        for size in tensor.shape[:-1]:
            rows *= size
        if columns % packing.per_block:
            raise CorruptCheckpointError(
                f"{path}: {name!r} has rows of {columns} numbers; {packing.name} packs {packing.per_block} at a time."
            )
        out[name] = rows * (columns // packing.per_block) * packing.nbytes
        if tensor.offset < end:
            raise CorruptCheckpointError(f"{path}: {name!r} overlaps {before}.")
        expected = end + (header.begin - end) % header.alignment
        if tensor.offset != expected:
            raise CorruptCheckpointError(
                f"{path}: {tensor.offset - expected} bytes between {before} and {name!r} belong to no tensor; is "
                f"{before} packed in another way than the header says?"
            )
        end, before = tensor.offset + out[name], f"{name!r} ({packing.name})"
    if end > header.file_size:
        raise CorruptCheckpointError(
            f"{path} has {header.file_size} bytes of the {end} that its header says ({before} is cut off): a "
            f"download that stopped?\n  {fetch_again(path)}."
        )
    if header.file_size - end >= header.alignment:
        raise CorruptCheckpointError(
            f"{path} has {header.file_size} bytes, {header.file_size - end} more than its header says; is {before} "
            "packed in another way than the header says?"
        )
    return out


def _key(family: Family, name: str, path: Path) -> str:
    """Returns the name that the tensor had before it was converted."""
    layer = _LAYER.match(name)
    stem, _, leaf = name.rpartition(".")
    known = family.names.get(layer.group(2) if layer else stem)
    if known is None:
        raise CorruptCheckpointError(f"{path}: the tensor {name!r} has no place in the architecture {family.kind!r}.")
    return f"{family.layers}.{layer.group(1)}.{known}.{layer.group(3)}" if layer else f"{known}.{leaf}"


def _permuted_heads(family: Family, name: str, config: Mapping[str, Any]) -> int:
    """Returns over how many heads the converter has rearranged a tensor's rows; 0 if it has not."""
    if family.permutes and ".attn_q." in name:
        return int(config["num_attention_heads"])
    if family.permutes and ".attn_k." in name:
        return int(config["num_key_value_heads"])
    return 0


def _transposed(promise: LazyTensor) -> LazyTensor:
    return promise.view(torch.Tensor.t, promise.shape[::-1], promise.layout, "transposed")


def _promise(key: str, tensor: GGUFTensor, raw: Region, packing: _Packing, heads: int, io: str) -> LazyTensor:
    if heads and (not tensor.shape or tensor.shape[0] % (2 * heads)):
        raise CorruptCheckpointError(
            f"{raw.path}: {tensor.name!r} has the shape {tensor.shape}, which {heads} heads cannot share."
        )
    plain = _PLAIN.get(tensor.kind)
    if plain is not None and not heads:
        return Region(raw.path, raw.offset, tensor.shape, plain, raw.file_size).promise(key, io)
    dtype = torch.float32 if plain is None else plain
    steps = (*(("unpacked from " + packing.name,) if plain is None else ()), *(("rows rearranged",) if heads else ()))

    def make() -> Tensor:
        return _unpacked(raw.map() if io == "map" else raw.read(), tensor.shape, dtype, packing, heads)

    # A block is unpacked into float32, by way of a few intermediates of its size.
    working = 4 * 4 * _BLOCK + (0 if io == "map" else raw.nbytes)
    origin = Origin(key, raw.path.name, steps, raw.span)
    return LazyTensor(tensor.shape, dtype, Held.FRESH, origin, make, working=working)


def _unpacked(raw: Tensor, shape: tuple[int, ...], dtype: torch.dtype, packing: _Packing, heads: int) -> Tensor:
    """Returns a tensor's numbers in new memory, unpacked by blocks of rows."""
    out = empty(shape, dtype, None)
    if out.numel() == 0:
        return out
    rows = out.view(-1, shape[-1]) if len(shape) > 1 or not heads else out.view(-1, 1)
    packed = raw.view(rows.shape[0], -1)
    targets = _targets(rows.shape[0], heads) if heads else None
    step = max(1, _BLOCK // rows.shape[1])
    for first in range(0, rows.shape[0], step):
        piece = slice(first, first + step)
        if packing.kind is None:
            numbers = packed[piece].view(dtype)
        else:
            from gguf.quants import dequantize

            numbers = torch.from_numpy(dequantize(packed[piece].numpy(), packing.kind)).view(-1, rows.shape[1])
        if targets is None:
            rows[piece] = numbers
        else:
            rows[targets[piece]] = numbers
    return out


def _targets(n_rows: int, heads: int) -> Tensor:
    """Returns where each row belongs: a head's rotated pairs go from neighbours (2j, 2j + 1) to halves (j, j + d/2)."""
    halves = torch.arange(n_rows).view(heads, 2, -1)
    return halves.transpose(1, 2).reshape(-1)
