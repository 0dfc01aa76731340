"""Another value in a parameter, for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def temporarily_swap_parameter(parameter: nn.Parameter, new_value: Tensor) -> Iterator[nn.Parameter]:
    """Gives a parameter another tensor as its value, and its own back at the end, also after an exception.

    Nothing is copied, and neither tensor is written to.

    Args:
        parameter: Stays the same object, so that optimizers and modules keep it.
        new_value: Of the same shape; on the parameter's device and of its dtype after a conversion.

    Yields:
        The parameter.

    Raises:
        ValueError: The shapes differ.
    """
    if new_value.shape != parameter.shape:
        raise ValueError(f"the new value has shape {tuple(new_value.shape)}, the parameter {tuple(parameter.shape)}")
    own = parameter.data
    parameter.data = new_value.detach().to(own.device, own.dtype)
    try:
        yield parameter
    finally:
        parameter.data = own
