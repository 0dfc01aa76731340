"""Layout strings: how the axes of ours lie in a tensor of the file, parsed once and applied often.

``"(head qkv d_head) d_model"`` says that the tensor is a matrix, that its rows run over heads, then over query, key and
value, then over the dimensions of a head, and its columns over the residual stream. The same string checks the shape,
makes the view, and names the axes.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Union

import torch
from torch import Tensor

Pick = Union[int, str]
_TOKEN = re.compile(r"\(|\)|[A-Za-z_][A-Za-z_0-9]*|1")
_OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv}


class LayoutError(ValueError):
    """The bare fact that a shape does not fit a layout; the frame that knows the tensor adds the rest."""


@cache
def parse(layout: str) -> tuple[tuple[str, ...], ...]:
    """Returns the named axes of each dimension: ``"(a b) c"`` gives ``(("a", "b"), ("c",))``.

    Raises:
        ValueError: The string is no layout, or names an axis twice.
    """
    if "".join(_TOKEN.findall(layout)) != layout.replace(" ", ""):
        raise ValueError(f"{layout!r} is no layout: names and one level of brackets are all there is.")
    dimensions: list[tuple[str, ...]] = []
    group: list[str] | None = None
    for token in _TOKEN.findall(layout):
        if token == "(":
            if group is not None:
                raise ValueError(f"{layout!r} has brackets inside brackets.")
            group = []
        elif token == ")":
            if not group:
                raise ValueError(f"{layout!r} closes a bracket that holds nothing.")
            dimensions.append(tuple(group))
            group = None
        elif group is not None:
            group.append(token)
        else:
            dimensions.append((token,))
    if group is not None:
        raise ValueError(f"{layout!r} leaves a bracket open.")
    named = [axis for dimension in dimensions for axis in dimension if axis != "1"]
    if len(set(named)) != len(named):
        raise ValueError(f"{layout!r} names an axis twice.")
    return tuple(dimensions)


def evaluate(expression: int | str, sizes: Mapping[str, int]) -> int:
    """Returns the value of ``"head + 2 * kv_head"`` for given sizes of axes; numbers, + - * // and names only."""
    if isinstance(expression, int):
        return expression

    def value(node: ast.expr) -> int:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.Name):
            return sizes[node.id]
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
            return int(_OPERATIONS[type(node.op)](value(node.left), value(node.right)))
        raise ValueError(f"{expression!r} is no expression of sizes.")

    return value(ast.parse(expression, mode="eval").body)


@dataclass(frozen=True)
class View:
    """How a tensor of the file becomes one of ours, for given sizes.

    Attributes:
        layout: The file's axes.
        target: Our axes, space separated.
        shape: The shape that the file must have.
        split: Its shape with every named axis apart.
        picks: For an axis of `split`: the index or the (start, stop) taken.
        order: Of the axes that are left, as `target` wants them.
        result: Our shape.
    """

    layout: str
    target: str
    shape: tuple[int, ...]
    split: tuple[int, ...]
    picks: tuple[tuple[int, int | tuple[int, int]], ...]
    order: tuple[int, ...]
    result: tuple[int, ...]

    def __call__(self, tensor: Tensor) -> Tensor:
        """Returns our tensor: a view, unless axes are merged that do not lie one behind the other."""
        if tuple(tensor.shape) != self.shape:
            raise LayoutError(f"{tuple(tensor.shape)} is not {self.shape}")
        out = tensor.reshape(self.split) if tuple(tensor.shape) != self.split else tensor
        for axis, pick in self.picks:
            out = out.select(axis, pick) if isinstance(pick, int) else out.narrow(axis, pick[0], pick[1] - pick[0])
        out = out.permute(self.order)
        return out if tuple(out.shape) == self.result else out.reshape(self.result)

    @property
    def copies(self) -> bool:
        """Whether the result cannot be a view of a contiguous tensor."""
        probe = torch.empty(self.shape, device="meta")
        return self(probe)._base is not probe and self(probe) is not probe


def make_view(
    layout: str,
    target: str,
    sizes: Mapping[str, int],
    pick: Mapping[str, Pick] | None = None,
    merge: Mapping[str, tuple[str, ...]] | None = None,
) -> View:
    """Joins a layout of the file and our axes.

    Args:
        layout: The file's axes, such as "(slot d_head) d_model".
        target: Ours, such as "head d_model d_head".
        sizes: Size of every axis named in either.
        pick: What is taken of an axis: an index drops it, a slice "start:stop" (expressions of sizes) keeps it under
            the one name of `target` that the layout lacks.
        merge: One of our axes made of several of the file's, outermost first.

    Raises:
        ValueError: The two do not name the same axes.
    """
    pick, merge = dict(pick or {}), dict(merge or {})
    dimensions = parse(layout)
    names = [axis for dimension in dimensions for axis in dimension]
    split = tuple(1 if axis == "1" else sizes[axis] for axis in names)
    shape = tuple(_product(1 if axis == "1" else sizes[axis] for axis in dimension) for dimension in dimensions)
    wanted = target.split()
    flat = [part for axis in wanted for part in merge.get(axis, (axis,))]
    unnamed = [axis for axis in flat if axis not in names]
    picks: list[tuple[int, int | tuple[int, int]]] = []
    left: list[str] = []
    extents: dict[str, int] = {}
    position = 0
    for axis, size in zip(names, split):
        choice = 0 if axis == "1" else pick.get(axis)
        if isinstance(choice, int):
            picks.append((position, choice))
            continue
        if choice is not None:
            start, _, stop = choice.partition(":")
            bounds = (evaluate(start or 0, sizes), evaluate(stop, sizes) if stop else size)
            picks.append((position, bounds))
            if axis not in flat:
                if len(unnamed) != 1:
                    raise ValueError(f"{layout!r} with {dict(pick)} does not give {target!r}.")
                axis = unnamed[0]
            extents[axis] = bounds[1] - bounds[0]
        else:
            extents[axis] = size
        left.append(axis)
        position += 1
    if sorted(left) != sorted(flat):
        raise ValueError(f"{layout!r} with {dict(pick)} gives the axes {left}, not {target!r}.")
    result = tuple(_product(extents[part] for part in merge.get(axis, (axis,))) for axis in wanted)
    return View(layout, target, shape, split, tuple(picks), tuple(left.index(axis) for axis in flat), result)


def _product(sizes: Iterable[int]) -> int:
    out = 1
    for size in sizes:
        out *= size
    return out
