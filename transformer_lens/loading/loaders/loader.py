"""What loaders share: checks before anything is touched, and putting tensors where parameters are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from transformer_lens.loading.conversion.convert import collapse
from transformer_lens.loading.errors import LayoutMismatchError, MissingTensorError, UnexpectedTensorError
from transformer_lens.loading.weights import LazyTensor, Weights

Advance = Callable[[int], None]


class StateDictLoader(ABC):
    """Makes promises the parameters of a module.

    Parameters are placed by name, in one walk over the module tree: the same code on every torch, without the hooks
    of ``load_state_dict`` through which packed weights lose their attributes.
    """

    def load(self, module: nn.Module, weights: Weights, advance: Advance = lambda nbytes: None) -> None:
        """Keeps every promise and places the result.

        Everything that can be wrong is found first; when a promise fails to be kept the module is as it was.

        Args:
            module: Its parameters may be on the meta device.
            weights: By the names of the module's parameters.
            advance: Told the bytes of each tensor when it is there.

        Raises:
            MissingTensorError: A parameter has no promise.
            UnexpectedTensorError: A promise has no parameter.
            LayoutMismatchError: A promise has another shape than its parameter.
        """
        owners = parameter_owners(module)
        check(owners, weights)
        ready: dict[str, nn.Parameter] = {}
        for name, promise in weights.items():
            ready[name] = self.parameter(promise)
            advance(promise.nbytes)
        for name, parameter in ready.items():
            owner, leaf = owners[name]
            owner._parameters[leaf] = parameter
        left = [name for name, parameter in module.named_parameters() if parameter.device.type == "meta"]
        if left:
            raise MissingTensorError(
                "Parameters that no checkpoint fills are still without memory: " + ", ".join(collapse(left))
            )

    @abstractmethod
    def parameter(self, promise: LazyTensor) -> nn.Parameter:
        """Keeps one promise."""


def parameter_owners(module: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Returns for every parameter the module that holds it and its name there."""
    owners: dict[str, tuple[nn.Module, str]] = {}
    for prefix, owner in module.named_modules():
        for leaf, parameter in owner._parameters.items():
            if parameter is not None:
                owners[f"{prefix}.{leaf}" if prefix else leaf] = (owner, leaf)
    return owners


def check(owners: Mapping[str, tuple[nn.Module, str]], weights: Weights) -> None:
    """Compares names and shapes; what a subclass has added (real, without a promise) is left alone."""
    missing = [
        name
        for name, (owner, leaf) in owners.items()
        if name not in weights and _parameter(owner, leaf).device.type == "meta"
    ]
    if missing:
        raise MissingTensorError(
            "The weights lack parameters of the model:\n" + "\n".join(f"  {line}" for line in collapse(missing))
        )
    unexpected = [name for name in weights if name not in owners]
    if unexpected:
        raise UnexpectedTensorError(
            "The weights hold names that the model has no parameter for:\n"
            + "\n".join(f"  {line}" for line in collapse(unexpected))
        )
    wrong = [
        f"  {name}: model {tuple(_parameter(*owners[name]).shape)}, weights {promise.shape}"
        for name, promise in weights.items()
        if tuple(_parameter(*owners[name]).shape) != promise.shape and not promise.packed
    ]
    if wrong:
        raise LayoutMismatchError("Shapes of model and weights differ:\n" + "\n".join(wrong[:8]))


def _parameter(owner: nn.Module, leaf: str) -> nn.Parameter:
    parameter = owner._parameters[leaf]
    assert parameter is not None
    return parameter


def replace_parameters(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts new tensors into the parameters that a module has: the same objects, so that optimizers keep them.

    Old storage, which may be a file's or another model's, is not written to.
    """
    owners = parameter_owners(module)
    for name, tensor in tensors.items():
        _parameter(*owners[name]).data = tensor.detach()


def as_parameter(tensor: Tensor) -> nn.Parameter:
    """Wraps a tensor without touching it: an alias of the same memory with its own gradient."""
    trainable = tensor.dtype.is_floating_point or tensor.dtype.is_complex
    with torch.no_grad():
        return nn.Parameter(tensor.detach(), requires_grad=trainable)
