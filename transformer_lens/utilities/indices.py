"""Whole numbers, of whatever type they come in."""

import operator
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import Tensor


def as_index(value: SupportsIndex | Any, what: str) -> int:
    """Reads a whole number: a Python or numpy integer, or a tensor or array of one integer.

    Args:
        value: The number.
        what: What it is, for the message.

    Raises:
        TypeError: It is something else. A bool is no number here: it is a mask or a flag in the wrong place.
    """
    try:
        if not isinstance(value, (bool, np.bool_)) and not (isinstance(value, Tensor) and value.dtype == torch.bool):
            return operator.index(value)
    except TypeError:
        pass
    raise TypeError(f"{what} is {str(value)[:80]!r}, a {type(value).__name__}, and not an integer")


def as_layer(layer: SupportsIndex | Any, n_layers: int) -> int:
    """Reads the index of a layer; a negative one counts from the end.

    Args:
        layer: The index, of any integer type.
        n_layers: How many there are.

    Raises:
        TypeError: It is no integer.
        IndexError: There is no such layer.
    """
    index = as_index(layer, "layer")
    if not -n_layers <= index < n_layers:
        raise IndexError(f"layer is {index}; there are layers 0 to {n_layers - 1}, and -1 is the last")
    return index % n_layers
