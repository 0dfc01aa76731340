"""What loaders share: checks before anything is touched, and putting tensors where parameters are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from transformer_lens.loading.conversion.convert import collapse
from transformer_lens.loading.errors import LayoutMismatchError, MissingTensorError, UnexpectedTensorError
from transformer_lens.loading.memory.fresh import empty_in_order, order_of
from transformer_lens.loading.memory.pool import Advance, keep_all
from transformer_lens.loading.quantization.packed import Compute
from transformer_lens.loading.weights import Held, LazyTensor, Weights

Owners = Mapping[str, tuple[nn.Module, str]]


class StateDictLoader(ABC):
    """Makes promises the parameters of a module.

    Parameters are placed by name, in one walk over the module tree: the same code on every torch, without the hooks
    of ``load_state_dict`` through which packed weights lose their attributes.
    """

    #: Whether it reads what is mapped or borrowed.
    copies: bool

    def load(
        self, module: nn.Module, weights: Weights, advance: Advance = lambda nbytes: None, threads: int = 1
    ) -> None:
        """Keeps every promise and places the results.

        Everything that can be wrong is found first; when a promise fails to be kept the module is as it was.
        Parameters on the meta device are replaced; others stay the objects they are and get the new memory: their
        old memory is not written to.

        Args:
            module: Its parameters may be on the meta device.
            weights: By the names of the module's parameters.
            advance: Told the bytes of each tensor when it is there.
            threads: How many keep promises at once.

        Raises:
            MissingTensorError: A parameter has no promise, or its promise no memory.
            UnexpectedTensorError: A promise has no parameter.
            LayoutMismatchError: A promise has another shape than its parameter.
        """
        owners = parameter_owners(module)
        check(owners, weights)
        ready = keep_all(weights, self.keep, advance, threads, self.copies)
        for name, promise in weights.items():
            assert promise.packed is not None or tuple(ready[name].shape) == promise.shape, name
        unfilled = [name for name, tensor in ready.items() if tensor.device.type == "meta"]
        if unfilled:
            raise MissingTensorError("The weights have no memory, only shapes: " + ", ".join(collapse(unfilled)))
        computes = {name: packing.made_compute() for name in ready if (packing := weights[name].packed) is not None}
        for name, tensor in ready.items():
            if name in computes:
                _put_packed(*owners[name], tensor, computes[name])
            else:
                _put(*owners[name], tensor)

    @abstractmethod
    def keep(self, promise: LazyTensor) -> Tensor:
        """Keeps one promise."""


def compact(promise: LazyTensor, tensor: Tensor) -> Tensor:
    """Returns a fresh result without what it is a part of: a slice would keep the whole in memory."""
    if (
        promise.held is not Held.FRESH
        or promise.packed is not None
        or tensor.untyped_storage().nbytes() <= promise.nbytes
    ):
        return tensor
    return copied(tensor)


def copied(tensor: Tensor) -> Tensor:
    """Returns the numbers in memory of their own, the axes in the same order."""
    return empty_in_order(tensor.shape, order_of(tensor), tensor.dtype, tensor.device).copy_(tensor.detach())


def parameter_owners(module: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Returns for every parameter the module that holds it and its name there."""
    owners: dict[str, tuple[nn.Module, str]] = {}
    for prefix, owner in module.named_modules():
        for leaf, parameter in owner._parameters.items():
            if parameter is not None:
                owners[f"{prefix}.{leaf}" if prefix else leaf] = (owner, leaf)
    return owners


def check(owners: Owners, weights: Weights) -> None:
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
    _refuse_unexpected(owners, weights)
    _refuse_other_shapes(owners, {name: promise.shape for name, promise in weights.items() if promise.packed is None})


def replace_parameters(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts new tensors into the parameters that a module has: the same objects, so that optimizers keep them.

    Old storage, which may be a file's or another model's, is not written to.

    Args:
        module: Its parameters that are not named stay as they are.
        tensors: By names of parameters; each becomes the parameter's memory, in its dtype and on its device.

    Raises:
        UnexpectedTensorError: A name is no parameter's. The module is as it was.
        LayoutMismatchError: A tensor has another shape than its parameter. The module is as it was.
    """
    owners = parameter_owners(module)
    _refuse_unexpected(owners, tensors)
    _refuse_other_shapes(owners, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    for name, tensor in tensors.items():
        _put(*owners[name], tensor)


def _refuse_unexpected(owners: Owners, names: Mapping[str, object]) -> None:
    unexpected = [name for name in names if name not in owners]
    if unexpected:
        raise UnexpectedTensorError(
            "The weights hold names that the model has no parameter for:\n"
            + "\n".join(f"  {line}" for line in collapse(unexpected))
        )


def _refuse_other_shapes(owners: Owners, shapes: Mapping[str, tuple[int, ...]]) -> None:
    wrong = [
        f"  {name}: model {tuple(_parameter(*owners[name]).shape)}, weights {shape}"
        for name, shape in shapes.items()
        if tuple(_parameter(*owners[name]).shape) != shape
    ]
    if wrong:
        more = [f"  … and {len(wrong) - 8} more"] if len(wrong) > 8 else []
        raise LayoutMismatchError("Shapes of model and weights differ:\n" + "\n".join([*wrong[:8], *more]))


def _parameter(owner: nn.Module, leaf: str) -> nn.Parameter:
    parameter = owner._parameters[leaf]
    assert parameter is not None
    return parameter


def _put_packed(owner: nn.Module, leaf: str, parameter: Tensor, compute: Compute) -> None:
    """Makes a packed parameter, the object that it is, a parameter of a module, and notes how it is multiplied."""
    assert isinstance(parameter, nn.Parameter), type(parameter)
    owner._parameters[leaf] = parameter
    vars(owner)["packing"] = {**vars(owner).get("packing", {}), leaf: compute}


def _put(owner: nn.Module, leaf: str, tensor: Tensor) -> None:
    """Makes a tensor the memory of a parameter: a new one for a placeholder, else the same object.

    A new parameter is an alias: the tensor, which may be another model's, keeps its own ``requires_grad``.
    """
    old = _parameter(owner, leaf)
    if old.device.type != "meta":
        old.data = tensor.detach()
        return
    trainable = old.requires_grad and (tensor.dtype.is_floating_point or tensor.dtype.is_complex)
    with torch.no_grad():
        owner._parameters[leaf] = nn.Parameter(tensor.detach(), requires_grad=trainable)
