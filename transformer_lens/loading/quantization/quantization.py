"""What of a load is packed: the pipeline's one place for it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.checkpoint.checkpoint import Checkpoint
from transformer_lens.loading.conversion import Architecture, Converted, convert
from transformer_lens.loading.conversion.convert import collapse
from transformer_lens.loading.errors import QuantizedTensorError
from transformer_lens.loading.processing.linear_chain import recast
from transformer_lens.loading.quantization import bitsandbytes
from transformer_lens.loading.quantization.apart import taken_apart
from transformer_lens.loading.quantization.on_load import is_matrix, packed_file, packed_parameters, skipped
from transformer_lens.loading.quantization.promises import as_in_file
from transformer_lens.loading.quantization.settings import Settings
from transformer_lens.loading.request import Request
from transformer_lens.loading.weights import LazyTensor, Weights

_ASKED = "dequantize=True"


@dataclass(frozen=True)
class Quantization:
    """What a checkpoint has packed, and what a request wants packed.

    Attributes:
        checkpoint: Whose weights may be packed.
        architecture: Its table.
        settings: What is to be packed on load; None for nothing.
        dequantize: Whether what is packed becomes numbers.
    """

    checkpoint: Checkpoint
    architecture: Architecture
    settings: Settings | None
    dequantize: bool

    @classmethod
    def of(cls, request: Request, checkpoint: Checkpoint, architecture: Architecture) -> Quantization:
        """Compares what there is with what is asked for.

        Raises:
            QuantizedTensorError: The checkpoint is packed in another way than it is to be packed in.
        """
        settings = request.quantize
        kinds = {tensor.packed.kind for tensor in checkpoint.weights.values() if tensor.packed is not None}
        if settings is not None and kinds:
            bits = {"8" if kind == "int8" else "4" for kind in kinds}
            wanted = "4" if settings.load_in_4bit else "8"
            if bits != {wanted}:
                raise QuantizedTensorError(
                    f"{checkpoint.label} is packed already ({', '.join(sorted(kinds))}), and {settings.kind} was asked "
                    "for.\n  Leave the argument out to load it as it is, or give an unpacked checkpoint."
                )
            # Asked for what there is.
            settings = None
        return cls(checkpoint, architecture, settings, request.dequantize)

    def file(self) -> Weights:
        """Returns the checkpoint's promises: packed ones as numbers where these were asked for."""
        weights = self.checkpoint.weights
        if not self.dequantize:
            return weights
        packed = {key: tensor for key, tensor in weights.items() if tensor.packed is not None}
        transposed = self.architecture.is_transposed
        return weights.updated({key: as_in_file(tensor, transposed(key)) for key, tensor in packed.items()})

    def pack(
        self,
        weights: Weights,
        processed: Weights,
        unprocessed: Weights,
        file_cfg: HookedTransformerConfig,
        dtype: torch.dtype,
    ) -> Weights:
        """Returns the promises with matrices packed, if that is asked for.

        What processing has left alone is packed as transformers packs it: a matrix of the file whole, which differs
        from its parts where scales are packed. What processing has changed is packed by parameter. What folding and
        centring have done to a matrix of 4 bits is kept beside its bytes: it would spread the columns of a block, which
        share a scale.

        Args:
            weights: Processed and placed.
            processed: Processed.
            unprocessed: As conversion has left them.
            file_cfg: Of the model as the file has it.
            dtype: That matrices are packed from.
        """
        settings = self.settings
        if settings is None:
            return weights
        tied = self.architecture.ties(self.checkpoint.config)
        wanted = {name for name in weights if self._is_wanted(name, weights, tied)}
        found = {name: taken_apart(processed[name]) for name in wanted} if settings.load_in_4bit else {}
        parts = {name: part for name, part in found.items() if part is not None}
        rests = {name: part.rest for name, part in parts.items()}
        out = weights.updated({name: recast(rest, dtype, weights[name].device) for name, rest in rests.items()})
        untouched = [name for name, tensor in processed.items() if rests.get(name, tensor) is unprocessed.get(name)]
        for device in dict.fromkeys(tensor.device for tensor in weights.values()):
            out = out.updated(self._packed_whole(untouched, device, file_cfg, dtype, tied, weights))
        left = [name for name, tensor in out.items() if tensor.packed is None and name in wanted]
        out = packed_parameters(out, left, settings)
        return out.updated({name: part.onto(out[name], dtype) for name, part in parts.items()})

    def _packed_whole(
        self,
        names: Collection[str],
        device: torch.device,
        file_cfg: HookedTransformerConfig,
        dtype: torch.dtype,
        tied: bool,
        weights: Weights,
    ) -> dict[str, LazyTensor]:
        """Promises the named parameters on a device as rows of matrices of the file that are packed whole."""
        assert self.settings is not None
        checkpoint = self.checkpoint
        file = packed_file(checkpoint.weights, self.architecture, self.settings, dtype, device, tied)
        converted = convert(file, self.architecture, file_cfg, checkpoint.config, checkpoint.label)
        return {
            name: converted.weights[name]
            for name in names
            if weights[name].device == device and converted.weights[name].packed is not None
        }

    def _is_wanted(self, name: str, weights: Weights, tied: bool) -> bool:
        assert self.settings is not None
        key = weights[name].origin.key
        if not is_matrix(name) or not key or (name == "unembed.W_U" and tied):
            return False
        return not skipped(key, self.architecture, self.settings, tied)

    def require(self, weights: Weights) -> None:
        """Raises where the packed weights could not be multiplied.

        Raises:
            QuantizedTensorError: bitsandbytes is missing, or too old.
        """
        for device in {tensor.device for tensor in weights.values() if tensor.packed is not None}:
            bitsandbytes.require(device, self.checkpoint.label)

    def kept(self, weights: Weights) -> tuple[tuple[str, str], ...]:
        """Returns (step, reason) of what processing has left as it is because of the packing."""
        beside = [name for name, tensor in weights.items() if tensor.packed is not None and tensor.packed.beside]
        if not beside:
            return ()
        why = (
            "norms and means are kept beside them, exactly: folded in, they would spread what shares a scale of 4 bits"
        )
        return ((f"processing of the packed bytes of {', '.join(collapse(beside))}", why),)

    def facts(self, weights: Weights, converted: Converted) -> dict[str, Any]:
        """Returns what a report says."""
        packed = {name: tensor for name, tensor in weights.items() if tensor.packed is not None}
        ways: dict[str, int] = {}
        for tensor in packed.values():
            assert tensor.packed is not None
            way = _way(tensor.packed.kind, tensor.packed.nested, tensor.packed.compute.dtype)
            ways[way] = ways.get(way, 0) + 1
        dequantized = {
            name: converted.unpacked.get(name, _ASKED if self.dequantize else "an adapter was merged into it")
            for name, tensor in converted.weights.items()
            if "dequantized" in tensor.origin.steps and weights[name].packed is None
        }
        return {
            "quantization": "; ".join(ways),
            "packed": tuple(packed),
            "bytes_packed": sum(tensor.nbytes for tensor in packed.values()),
            "dequantized": dequantized,
        }


def _way(kind: str, nested: bool, dtype: torch.dtype | None) -> str:
    scales = ", nested scales" if nested else ""
    return f"{kind}{scales}" + ("" if dtype is None else f", products in {str(dtype)[6:]}")
