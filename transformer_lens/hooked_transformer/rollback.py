"""Operations on a model that exists: each is done whole, or the model is as it was."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import methodcaller
from typing import Any

from torch import Tensor, nn

Step = Callable[[], Any]


@contextmanager
def rolled_back_on_error(model: nn.Module, *objects: Any) -> Iterator[None]:
    """Puts a model back as it was if the block raises anything, an interrupt included.

    What is put back: which modules, parameters and buffers there are, the memory that they have, their gradients, and
    the attributes of every module and of the other objects. What was written into memory itself is not: a block makes
    new tensors, or writes at its very end, by `at_once`.

    Args:
        model: The model.
        *objects: What else the block changes the attributes of: configs, tokenizers.
    """
    steps = [step for module in model.modules() for step in _of_object(module)]
    for tensor in (*model.parameters(), *model.buffers()):
        steps += _of_tensor(tensor)
    for other in objects:
        steps += _of_object(other)
    try:
        yield
    except BaseException:
        at_once(steps)
        raise


def at_once(steps: list[Step]) -> None:
    """Takes steps that are functions of C and no Python: no signal is handled before the last is done."""
    deque(map(methodcaller("__call__"), steps), maxlen=0)


def _of_object(of: Any) -> list[Step]:
    """Puts back attributes, and dicts that are attributes. ``setattr`` of modules is Python, so it is not used."""
    try:
        attributes = vars(of)
    except TypeError:
        # A tokenizer may be anything that behaves like one.
        return []
    inside = [value for value in attributes.values() if isinstance(value, dict)]
    return [step for mapping in (attributes, *inside) for step in _of_mapping(mapping)]


def _of_mapping(mapping: dict[str, Any]) -> list[Step]:
    before = dict(mapping)
    return [mapping.clear, partial(mapping.update, before)]


def _of_tensor(tensor: Tensor) -> list[Step]:
    steps: list[Step] = [partial(setattr, tensor, "data", tensor.data)]
    if tensor.is_leaf:
        gradient = tensor.grad
        if gradient is not None:
            steps.append(partial(setattr, gradient, "data", gradient.data))
        steps += [partial(setattr, tensor, "grad", gradient), partial(tensor.requires_grad_, tensor.requires_grad)]
    return steps
