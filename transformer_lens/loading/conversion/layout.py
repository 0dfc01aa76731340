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
from functools import cache, cached_property

import torch
from torch import Tensor

Pick = int | str
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
            return _size(node.id, sizes)
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
        """Returns our tensor: one that shares the storage of `tensor`, or memory of its own where `copies` says so.

        Raises:
            LayoutError: `tensor` has another shape than the layout says.
        """
        if tuple(tensor.shape) != self.shape:
            raise LayoutError(f"{tuple(tensor.shape)} is not {self.shape}")
        out = self._apart(tensor)
        if self.copies:
            return out.clone(memory_format=torch.contiguous_format).view(self.result)
        return out.reshape(self.result)

    @cached_property
    def copies(self) -> bool:
        """Whether our axes merge some of the file's that do not lie one behind the other, which no view can."""
        try:
            self._apart(torch.empty(self.shape, device="meta")).view(self.result)
        except RuntimeError:
            return True
        return False

    def _apart(self, tensor: Tensor) -> Tensor:
        """Returns the axes that are left, in our order, none merged; a view for any strides."""
        out = tensor.view(self.split)
        for axis, pick in self.picks:
            out = out.select(axis, pick) if isinstance(pick, int) else out.narrow(axis, pick[0], pick[1] - pick[0])
        return out.permute(self.order)


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
        pick: What is taken of an axis, as expressions of sizes: an index ("head") drops the axis, a slice
            ("head:head + kv_head") keeps it under the one name of `target` that the layout lacks.
        merge: One of our axes made of several of the file's, outermost first.

    Raises:
        ValueError: The two do not name the same axes, or a pick does not fit its axis.
    """
    pick, merge = dict(pick or {}), dict(merge or {})
    dimensions = parse(layout)
    names = [axis for dimension in dimensions for axis in dimension]
    wanted = target.split()
    flat = [part for axis in wanted for part in merge.get(axis, (axis,))]
    for axis in (*pick, *merge):
        if axis not in (names if axis in pick else wanted):
            raise ValueError(f"{layout!r} as {target!r} has no axis {axis!r} to pick from or to merge into.")
    extent = {axis: 1 if axis == "1" else _size(axis, sizes) for axis in names}
    picks: list[tuple[int, int | tuple[int, int]]] = []
    left: dict[str, int] = {}
    for axis in names:
        choice = 0 if axis == "1" else _choice(axis, pick.get(axis), extent[axis], sizes)
        if choice is not None:
            picks.append((len(left), choice))
        if isinstance(choice, tuple):
            left[axis if axis in flat else _new_name(layout, target, flat, names)] = choice[1] - choice[0]
        elif choice is None:
            left[axis] = extent[axis]
    if sorted(left) != sorted(flat):
        raise ValueError(f"{layout!r} with {dict(pick)} gives the axes {list(left)}, not {target!r}.")
    result = tuple(_product(left[part] for part in merge.get(axis, (axis,))) for axis in wanted)
    for axis, size in zip(wanted, result):
        if size != sizes.get(axis, size):
            raise ValueError(f"{layout!r} with {dict(pick)} gives {size} for {axis!r}, which is {sizes[axis]}.")
    return View(
        layout,
        target,
        tuple(_product(extent[axis] for axis in dimension) for dimension in dimensions),
        tuple(extent[axis] for axis in names),
        tuple(picks),
        tuple(list(left).index(axis) for axis in flat),
        result,
    )


def _choice(axis: str, pick: Pick | None, size: int, sizes: Mapping[str, int]) -> int | tuple[int, int] | None:
    """Returns the index or the (start, stop) that a pick means; None where the whole axis is taken."""
    if pick is None:
        return None
    if isinstance(pick, str) and ":" in pick:
        start, _, stop = pick.partition(":")
        bounds = (evaluate(start.strip() or 0, sizes), evaluate(stop.strip() or size, sizes))
        if not 0 <= bounds[0] < bounds[1] <= size:
            raise ValueError(f"the slice {pick!r} = {bounds} does not lie in {axis!r}, which is {size}.")
        return bounds
    index = evaluate(pick, sizes)
    if not 0 <= index < size:
        raise ValueError(f"the index {pick!r} = {index} does not lie in {axis!r}, which is {size}.")
    return index


def _new_name(layout: str, target: str, flat: list[str], names: list[str]) -> str:
    unnamed = [axis for axis in flat if axis not in names]
    if len(unnamed) != 1:
        raise ValueError(f"a slice of {layout!r} cannot be named: {target!r} has {len(unnamed)} axes that it lacks.")
    return unnamed[0]


def _size(axis: str, sizes: Mapping[str, int]) -> int:
    if axis not in sizes:
        raise ValueError(f"there is no size for the axis {axis!r}.")
    return sizes[axis]


def _product(sizes: Iterable[int]) -> int:
    out = 1
    for size in sizes:
        out *= size
    return out
