"""A module whose matrices may be packed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from transformer_lens import anatomy
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.quantization import bitsandbytes
from transformer_lens.loading.quantization.beside import beside_of
from transformer_lens.loading.quantization.matrices import matrix_order
from transformer_lens.loading.quantization.packed import Compute
from transformer_lens.loading.quantization.stored import entries_of, packed_from_entries

T = TypeVar("T", bound="MatrixOwner")


class MatrixOwner(nn.Module):
    """Holds matrices as numbers in our axes, or as parameters of bitsandbytes.

    A packed parameter is carried whole: it moves between devices with its scales, is never cast, and comes back from
    ``state_dict``, ``deepcopy`` and pickling as what it was.

    Attributes:
        cfg: Of the model.
        packing: How packed parameters are multiplied, by their names here; empty where all are numbers.
    """

    cfg: HookedTransformerConfig
    packing: Mapping[str, Compute] = MappingProxyType({})

    def numbers(self, name: str) -> Tensor:
        """Returns a weight in our axes: the parameter itself, or a packed one dequantized into new memory.

        Args:
            name: Of the parameter.
        """
        if name not in self.packing:
            weight: Tensor = getattr(self, name)
            return weight
        sizes = anatomy.axis_sizes(self.cfg)
        axes = anatomy.MATRICES[name.removeprefix("_")]
        matrix = bitsandbytes.packed_of(self._packed(name)).dequantized()
        beside = self.packing[name].beside
        if beside is not None:
            matrix = beside.numbers(matrix)
        order = matrix_order(axes, [sizes[axis] for axis in axes.split()])
        return order.from_matrix(matrix.to(self.cfg.dtype))

    def _packed(self, name: str) -> nn.Parameter:
        parameter = self._parameters[name]
        assert parameter is not None
        return parameter

    def _apply(self: T, fn: Callable[[Tensor], Tensor], *args: Any) -> T:
        """Moves packed parameters whole; a function that casts never sees their bytes."""
        held = {name: self._packed(name) for name in self.packing}
        self._parameters.update(dict.fromkeys(held))
        try:
            super()._apply(fn, *args)
        finally:
            self._parameters.update(held)
        for name, parameter in held.items():
            # What moves and casts leaves the dtype of integers alone.
            device = fn(torch.empty(0, dtype=torch.uint8, device=parameter.device)).device
            if device != parameter.device:
                packed = bitsandbytes.packed_of(parameter).moved(lambda tensor: tensor.to(device))  # noqa: B023
                self._parameters[name] = bitsandbytes.as_parameter(packed)
                self.packing = {**self.packing, name: self.packing[name].moved(device)}
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for name in self.packing:
            self._parameters[name] = bitsandbytes.restored(self._packed(name))

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in self.packing:
            entries = bitsandbytes.state_entries(self._packed(name))
            beside = self.packing[name].beside
            if beside is not None:
                entries |= beside.entries()
            destination.update({f"{prefix}{name}.{part}": tensor for part, tensor in entries.items()})

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Tensor], prefix: str, local_metadata: Any, *rest: Any
    ) -> None:
        packed = {
            name: entries
            for name in self._parameters
            if (entries := entries_of(state_dict, f"{prefix}{name}")) and f"{prefix}{name}" in state_dict
        }
        ready: dict[str, nn.Parameter] = {}
        for name, entries in packed.items():
            data = state_dict[f"{prefix}{name}"]
            found = packed_from_entries(data, entries, f"{prefix}{name}")
            if not local_metadata.get("assign_to_params_buffers", False):
                found = found.moved(torch.clone)
                entries = {part: tensor.clone() for part, tensor in entries.items()}
            beside = beside_of(entries, found.shape[1], f"{prefix}{name}")
            known = replace(self.packing.get(name, Compute(found.shape)), beside=beside)
            self.packing = {**self.packing, name: known}
            ready[name] = bitsandbytes.as_parameter(found)
        taken = {f"{prefix}{name}.{part}" for name, entries in packed.items() for part in entries}
        taken |= {f"{prefix}{name}" for name in packed}
        self._parameters.update(dict.fromkeys(ready))
        plain = {key: value for key, value in state_dict.items() if key not in taken}
        super()._load_from_state_dict(plain, prefix, local_metadata, *rest)  # type: ignore[arg-type]
        self._parameters.update(ready)


def numbers_of(module: nn.Module, name: str) -> Tensor:
    """Returns a weight of any module as numbers: ours dequantizes what is packed."""
    return module.numbers(name) if isinstance(module, MatrixOwner) else getattr(module, name)


def parameter_count(model: nn.Module) -> int:
    """Returns the number of parameters; a packed matrix counts as many as it has numbers."""
    packed = [module for module in model.modules() if isinstance(module, MatrixOwner) and module.packing]
    opaque = {id(module._parameters[name]) for module in packed for name in module.packing}
    rows_columns = [compute.shape for module in packed for compute in module.packing.values()]
    plain = sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in opaque)
    return plain + sum(rows * columns for rows, columns in rows_columns)
