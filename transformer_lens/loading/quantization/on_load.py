"""Packs weights while they are loaded: what processing has changed by parameter, the rest as the file has it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from transformer_lens.anatomy import MATRICES
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.recipes import Recipe, Take
from transformer_lens.loading.memory.fresh import give_back
from transformer_lens.loading.processing.linear_chain import recast
from transformer_lens.loading.quantization import bitsandbytes
from transformer_lens.loading.quantization.matrices import MatrixOrder, matrix_order
from transformer_lens.loading.quantization.packed import Compute, Packed, Packing
from transformer_lens.loading.quantization.promises import packed_promise
from transformer_lens.loading.quantization.settings import Settings
from transformer_lens.loading.weights import Held, LazyTensor, Weights, element_size

# Matrices of a file that stay packed until the next ones are: queries, keys and values may be one.
_KEPT = 2


@dataclass
class _Recent:
    """The last few results, so that a matrix of several parameters is packed once."""

    kept: dict[str, Packed] = field(default_factory=dict)

    def get(self, key: str) -> Packed | None:
        return self.kept.get(key)

    def put(self, key: str, packed: Packed) -> None:
        while len(self.kept) >= _KEPT:
            del self.kept[next(iter(self.kept))]
        self.kept[key] = packed


def packed_file(
    weights: Weights,
    architecture: Architecture,
    settings: Settings,
    dtype: torch.dtype,
    device: torch.device,
    tied: bool,
) -> Weights:
    """Promises the matrices of a checkpoint packed as transformers would: each whole, the skipped ones as they are.

    Args:
        weights: By the names in the file.
        architecture: Its table.
        settings: What is asked for.
        dtype: That matrices are packed from.
        device: Where they are packed.
        tied: Whether the unembedding is the embedding: it stays float then.
    """
    recent = _Recent()
    out: dict[str, LazyTensor] = {}
    for key, tensor in weights.items():
        if is_linear(key, tensor, architecture) and not skipped(key, architecture, settings, tied):
            transposed = architecture.is_transposed(key)
            order = MatrixOrder(tensor.shape, (1,), (0,)) if transposed else MatrixOrder(tensor.shape, (0,), (1,))
            out[key] = _packed(recast(tensor, dtype, device), order, settings, recent)
    return weights.updated(out)


def packed_parameters(weights: Weights, names: Collection[str], settings: Settings) -> Weights:
    """Promises parameters of ours packed, each by itself.

    Args:
        weights: By our names, in the dtype and on the device that they are packed from.
        names: Which.
        settings: What is asked for.
    """
    out: dict[str, LazyTensor] = {}
    for name in names:
        tensor = weights[name]
        order = matrix_order(tensor.layout, tensor.shape)
        promise = _packed(tensor, order, settings, None)
        out[name] = replace(promise, shape=tensor.shape, layout=tensor.layout)
    return weights.updated(out)


def is_matrix(name: str) -> bool:
    """Whether a parameter of ours is one that ``nn.Linear`` would hold."""
    return name.rpartition(".")[2].removeprefix("_") in MATRICES


def is_linear(key: str, tensor: LazyTensor, architecture: Architecture) -> bool:
    """Whether a tensor of the file is the weight of a linear map."""
    in_layer = architecture.beyond(0)(key)
    return key.endswith(".weight") and len(tensor.shape) == 2 and (in_layer or key in _heads(architecture))


def skipped(key: str, architecture: Architecture, settings: Settings, tied: bool) -> bool:
    """Whether a linear map's weight stays float."""
    heads = _heads(architecture)
    if key not in heads:
        return settings.skips(key.removesuffix(".weight"), is_head=False)
    # transformers 5 renames heads: a pattern may mean either name.
    return tied or any(settings.skips(head.removesuffix(".weight"), is_head=True) for head in heads)


def _heads(architecture: Architecture) -> tuple[str, ...]:
    recipe: Recipe = architecture.once["unembed.W_U"]
    if not isinstance(recipe, Take):
        return ()
    return (recipe.key,) if isinstance(recipe.key, str) else recipe.key


def _packed(numbers: LazyTensor, order: MatrixOrder, settings: Settings, recent: _Recent | None) -> LazyTensor:
    key, shape = numbers.origin.key, order.matrix_shape

    def make() -> Packed:
        found = None if recent is None else recent.get(key)
        if found is None:
            matrix: Tensor = order.to_matrix(numbers.make().detach())
            found = bitsandbytes.quantized(matrix, settings)
            del matrix
            # Packing works on copies of several times the matrix, which the allocator would keep until the end.
            give_back()
            if recent is not None:
                recent.put(key, found)
        return found

    four, floats = settings.load_in_4bit, settings.load_in_8bit and settings.llm_int8_has_fp16_weight
    storage = settings.bnb_4bit_quant_storage if four else numbers.dtype if floats else torch.int8
    packing = Packing(
        settings.kind,
        Compute(shape, settings.bnb_4bit_compute_dtype if four else None, 0.0 if four else settings.llm_int8_threshold),
        _nbytes(shape, settings, numbers.dtype),
        settings.blocksize,
        settings.load_in_4bit and settings.bnb_4bit_use_double_quant,
        element_size(storage),
        numbers.dtype if four or floats else torch.float32,
        make,
    )
    origin = numbers.origin.then(f"packed ({settings.kind})")
    out = packed_promise(packing, storage, Held.FRESH, origin, numbers.device)
    return replace(out, sources=(numbers,))


def _nbytes(shape: tuple[int, int], settings: Settings, dtype: torch.dtype) -> int:
    count = shape[0] * shape[1]
    if not settings.load_in_4bit:
        return count * element_size(dtype) if settings.llm_int8_has_fp16_weight else count + 4 * shape[0]
    blocks = -(-count // settings.blocksize)
    scales = blocks + 4 * -(-blocks // 256) if settings.bnb_4bit_use_double_quant else 4 * blocks
    return (count + 1) // 2 + scales
