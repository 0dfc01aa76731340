"""What of a load is packed: the pipeline's one place for it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.checkpoint.checkpoint import Checkpoint
from transformer_lens.loading.conversion import Architecture, Converted, convert
from transformer_lens.loading.errors import QuantizedTensorError
from transformer_lens.loading.quantization import bitsandbytes
from transformer_lens.loading.quantization.on_load import is_matrix, packed_file, packed_parameters, skipped
from transformer_lens.loading.quantization.promises import as_in_file
from transformer_lens.loading.quantization.settings import Settings
from transformer_lens.loading.request import Request
from transformer_lens.loading.weights import Weights

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
        untouched: Collection[str],
        file_cfg: HookedTransformerConfig,
        dtype: torch.dtype,
    ) -> Weights:
        """Returns the promises with matrices packed, if that is asked for.

        What processing has left alone is packed as transformers packs it: a matrix of the file whole, which differs
        from its parts where scales are packed. What processing has changed is packed by parameter.

        Args:
            weights: Processed and placed.
            untouched: Names of those that processing has left alone.
            file_cfg: Of the model as the file has it.
            dtype: That matrices are packed from.
        """
        settings = self.settings
        if settings is None:
            return weights
        checkpoint = self.checkpoint
        tied = self.architecture.ties(checkpoint.config)
        out = weights
        for device in dict.fromkeys(tensor.device for tensor in weights.values()):
            file = packed_file(checkpoint.weights, self.architecture, settings, dtype, device, tied)
            converted = convert(file, self.architecture, file_cfg, checkpoint.config, checkpoint.label)
            whole = [
                name
                for name in untouched
                if weights[name].device == device and converted.weights[name].packed is not None
            ]
            out = out.updated({name: converted.weights[name] for name in whole})
        left = [name for name, tensor in out.items() if tensor.packed is None and self._is_wanted(name, weights, tied)]
        return packed_parameters(out, left, settings)

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
