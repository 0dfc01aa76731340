"""Attributes by dotted path."""

from functools import reduce
from typing import Any


def get_nested_attr(obj: Any, attr_str: str) -> Any:
    """Returns the attribute at a dotted path, such as ``"cfg.d_model"``."""
    return reduce(getattr, attr_str.split("."), obj)


def set_nested_attr(obj: Any, attr_str: str, value: Any) -> None:
    """Sets the attribute at a dotted path, whose last part may be new."""
    *parents, last = attr_str.split(".")
    setattr(reduce(getattr, parents, obj), last, value)
