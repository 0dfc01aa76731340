"""What a table may say of one parameter: data, read by ``convert``.

Keys are templates: ``{p}`` is the optional prefix of a file, ``{i}`` the layer, ``{e}`` the expert, or the place in a
stack. A tuple of keys is a set of alternatives of which exactly one must be in the file. The names that a table gives
recipes to may hold ``{e}`` too: ``"mlp.experts.{e}.W_in.weight"`` is one entry for all experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Key = str | tuple[str, ...]


@dataclass(frozen=True)
class When:
    """A condition on the config: the field, or its default where it is absent or null, has a value.

    Attributes:
        name: The field.
        default: What it is where config.json does not say.
        equals: The value; True and False compare what the field's value counts as.
        same_as: Another field, whose value it must have instead of `equals`, and has by default.
        at_most: A number that the field must not pass instead.
    """

    name: str
    default: Any
    equals: Any = True
    same_as: str | None = None
    at_most: int | None = None

    def holds(self, config: Mapping[str, Any]) -> bool:
        """Whether the condition holds for a config as parsed."""
        value = config.get(self.name)
        if self.same_as is not None:
            return value is None or bool(value == config.get(self.same_as))
        value = self.default if value is None else value
        if self.at_most is not None:
            return isinstance(value, int) and value <= self.at_most
        return bool((bool(value) if isinstance(self.equals, bool) else value) == self.equals)


@dataclass(frozen=True)
class Take:
    """One tensor of the file, or a part of one, seen in our axes: a view.

    Attributes:
        key: Its name, or alternatives.
        layout: Its axes.
        pick: What is taken of an axis: an index such as 0, "head" or "{e}", or a slice such as "head:head + kv_head".
        merge: One of our axes made of several of the file's.
        first_row: Rows to leave out at the start of the first dimension.
        sizes: Sizes of axes that only this entry has, as expressions of the others and of the config's fields.
        when: Where it does not hold the file must not have the tensor, and ours is zero.
        optional: Zero where the file has no such tensor.
        tied_to: What to read where the file has no such tensor and the config ties the two.
    """

    key: Key
    layout: str
    pick: Mapping[str, int | str] = field(default_factory=dict)
    merge: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    first_row: int = 0
    sizes: Mapping[str, int | str] = field(default_factory=dict)
    when: When | None = None
    optional: bool = False
    tied_to: str | None = None


@dataclass(frozen=True)
class Stack:
    """Several tensors of the file, stacked along a new first axis: memory of its own.

    Attributes:
        key: A template with ``{e}``.
        over: The axis they are stacked along; one of ours.
        layout: Axes of each.
        when: Where it does not hold the file must not have the tensors, and ours is zero.
    """

    key: str
    over: str
    layout: str
    when: When | None = None


@dataclass(frozen=True)
class Derived:
    """A value computed of others on load, out of place.

    Attributes:
        of: What it is computed of, each in the axes that its picks leave of its layout, in the file's order, all apart.
        function: Gets the tensors, returns ours in memory of its own, not rounded to a short dtype; must leave them as
            they are.
        step: What is done, for the report.
        dtype: In which the result is exact, where it is not that of the first tensor.
    """

    of: tuple[Take, ...]
    function: Callable[..., Tensor]
    step: str
    dtype: torch.dtype | None = None


@dataclass(frozen=True)
class Zeros:
    """A parameter that our model has and no file of this family: zero, and listed in the report."""


@dataclass(frozen=True)
class OneOf:
    """The same tensor under several names, each with a layout of its own: files differ, and live models from files.

    Attributes:
        alternatives: Of which exactly one must be there.
    """

    alternatives: tuple[Take | Derived, ...]


@dataclass(frozen=True)
class Choose:
    """One of two recipes, by the config: where one class of transformers lays its tensors out in several ways.

    Attributes:
        when: The condition.
        then: What is read where it holds.
        otherwise: What is read where it does not.
    """

    when: When
    then: Recipe
    otherwise: Recipe


Recipe = Take | Stack | Derived | Zeros | OneOf | Choose
