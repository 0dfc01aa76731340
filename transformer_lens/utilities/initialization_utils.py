"""Random starts for weights that are multiplied from the right, ``x @ W``."""

import math
from typing import Any, Literal

from torch import Tensor, nn

NonlinearityType = Literal[
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "sigmoid", "tanh", "relu", "leaky_relu", "selu",
]  # fmt: skip


def calc_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    """Counts the inputs and outputs of a weight ``[d_in, d_out]``, ``[head, d_in, d_out]``, or a bias ``[d_out]``.

    Returns:
        Inputs of one output, and outputs of one input; a weight with heads has those of all heads.

    Raises:
        ValueError: The tensor has no axis, or more than three.
    """
    shape = tuple(tensor.shape)
    if len(shape) == 1:
        return 1, shape[0]
    if len(shape) == 2:
        return shape[0], shape[1]
    if len(shape) == 3:
        return shape[1], shape[0] * shape[2]
    raise ValueError(f"a tensor of shape {list(shape)} has no fan-in and fan-out")


def _uniform_(param: Tensor, std: float) -> Tensor:
    bound = math.sqrt(3.0) * std
    return nn.init.uniform_(param, -bound, bound)


def _xavier_std(param: Tensor, gain: float | int) -> float:
    return gain * math.sqrt(2.0 / sum(calc_fan_in_and_fan_out(param)))


def _kaiming_std(param: Tensor, a: float | int, nonlinearity: Any, gain: float | int, mode: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', not {mode!r}")
    fan = calc_fan_in_and_fan_out(param)[mode == "fan_out"]
    return gain * nn.init.calculate_gain(nonlinearity, a) / math.sqrt(fan)


def init_xavier_uniform_(param: Tensor, gain: float | int = 1.0) -> Tensor:
    """Fills with uniform numbers of variance ``2 gain^2 / (fan_in + fan_out)`` (Glorot & Bengio 2010), in place."""
    return _uniform_(param, _xavier_std(param, gain))


def init_xavier_normal_(param: Tensor, gain: float | int = 1.0) -> Tensor:
    """Fills with normal numbers of variance ``2 gain^2 / (fan_in + fan_out)`` (Glorot & Bengio 2010), in place."""
    return nn.init.normal_(param, std=_xavier_std(param, gain))


def init_kaiming_uniform_(
    param: Tensor, a: float | int = 0, nonlinearity: Any = "relu", gain: float | int = 1.0, mode: str = "fan_in"
) -> Tensor:
    """Fills with uniform numbers of standard deviation ``gain * g / sqrt(fan)`` (He et al. 2015), in place.

    Args:
        param: What to fill.
        a: Slope of a leaky ReLU below zero.
        nonlinearity: Decides g, as in ``torch.nn.init.calculate_gain``.
        gain: A further factor.
        mode: Which fan: "fan_in" or "fan_out".
    """
    return _uniform_(param, _kaiming_std(param, a, nonlinearity, gain, mode))


def init_kaiming_normal_(
    param: Tensor, a: float | int = 0, nonlinearity: Any = "relu", gain: float | int = 1.0, mode: str = "fan_in"
) -> Tensor:
    """Fills with normal numbers of standard deviation ``gain * g / sqrt(fan)``, in place.

    The arguments are those of `init_kaiming_uniform_`.
    """
    return nn.init.normal_(param, std=_kaiming_std(param, a, nonlinearity, gain, mode))
