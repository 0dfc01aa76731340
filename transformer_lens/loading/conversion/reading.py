"""Reads the recipe of one parameter: which tensors of the file it is made of, and how."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from transformer_lens.anatomy import axis_sizes
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.computation import Computed
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.layout import View, evaluate, make_view, parse
from transformer_lens.loading.conversion.recipes import Choose, Derived, Key, OneOf, Recipe, Stack, Take, When, Zeros
from transformer_lens.loading.errors import MissingTensorError, UnexpectedTensorError
from transformer_lens.loading.quantization.matrices import rows_taken
from transformer_lens.loading.quantization.packed import Packing
from transformer_lens.loading.quantization.promises import as_in_file, dequantized, rows_of
from transformer_lens.loading.weights import Held, LazyTensor, Origin, Weights

_BLOCK = re.compile(r"blocks\.(\d+)\.(.*)")
_EXPERT = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True)
class Wanted:
    """A parameter of ours that a recipe is read for.

    Attributes:
        name: Its name.
        axes: Its axes, space separated.
        layer: Its block; None outside the blocks.
        entry: Its expert, or its place in a stack; None where there are none.
        zero_filled: Whether it is listed as zero where the file has nothing for it.
    """

    name: str
    axes: str
    layer: int | None = None
    entry: int | None = None
    zero_filled: bool = True

    def fill(self, template: str) -> str:
        """Returns a template with its layer and its entry filled in."""
        for place, number in (("{i}", self.layer), ("{e}", self.entry)):
            if number is not None:
                template = template.replace(place, str(number))
        return template


class Reader:
    """Reads recipes over one file, and gathers what was used and what is wrong.

    Attributes:
        used: Each key of the file that was read, with the first parameter that reads it.
        packed_parts: Those of them that are no numbers until a recipe makes them so.
        zero_filled: Parameters that the file has nothing for.
        tied: Parameters that read the same tensor as another: (name, the other).
        missing: Keys that the file should have.
        mismatched: For each key that does not fit its layout, in words how.
        unpacked: Parameters that are numbers though the file's tensor is packed, each with the reason.
    """

    def __init__(
        self,
        file: Weights,
        architecture: Architecture,
        cfg: HookedTransformerConfig,
        config: Mapping[str, Any],
        label: str,
    ) -> None:
        self._file, self._architecture, self._label = file, architecture, label
        self._config = architecture.text_fields(config)
        self._sizes = axis_sizes(cfg)
        self._prefix = self._find_prefix()
        self._dtype = file[self._prefix + architecture.anchor].dtype
        self._views: dict[tuple[Any, ...], View] = {}
        self.used: dict[str, str] = {}
        self.packed_parts: set[str] = set()
        self.zero_filled: list[str] = []
        self.tied: list[tuple[str, str]] = []
        self.missing: list[str] = []
        self.mismatched: dict[str, str] = {}
        self.unpacked: dict[str, str] = {}

    def _find_prefix(self) -> str:
        anchor = self._architecture.anchor
        found = [prefix for prefix in self._architecture.prefixes if prefix + anchor in self._file]
        if len(found) == 1:
            return found[0]
        if found:
            raise UnexpectedTensorError(
                f"{self._label} holds {' and '.join(repr(prefix + anchor) for prefix in found)}: "
                "two models in one checkpoint?"
            )
        names = ", ".join(repr(prefix + anchor) for prefix in self._architecture.prefixes)
        raise MissingTensorError(
            f"{self._label} holds none of {names}, and every {self._architecture.name} has one of them.\n"
            f"  it holds: {_some(self._file)}\n"
            f"  does {self._architecture.said_by} belong to these weights?"
        )

    def key(self, template: str) -> str:
        """Returns a template with the prefix of this file filled in."""
        return template.replace("{p}", self._prefix)

    def parameter(self, name: str, axes: str) -> LazyTensor | None:
        """Returns the promise of one of our parameters; None where the file does not give it, which is noted."""
        block = _BLOCK.match(name)
        layer = int(block.group(1)) if block else None
        table = self._architecture.block if block else self._architecture.once
        stem = (block.group(2) if block else name).replace("._", ".")
        if stem in table:
            return self._read(table[stem], Wanted(name, axes, layer))
        expert = _EXPERT.search(stem)
        entries = _EXPERT.sub("{e}", stem, count=1)
        if expert is not None and entries in table:
            return self._read(table[entries], Wanted(name, axes, layer, int(expert.group())))
        leaf = stem.rpartition(".")[2]
        assert leaf == "b" or leaf.startswith("b_"), f"{self._architecture.name} has no recipe for {stem}"
        return self._zeros(Wanted(name, axes, layer))

    def _read(self, recipe: Recipe, wanted: Wanted) -> LazyTensor | None:
        if isinstance(recipe, Choose):
            return self._read(recipe.then if recipe.when.holds(self._config) else recipe.otherwise, wanted)
        if isinstance(recipe, Take):
            return self._take(recipe, wanted)
        if isinstance(recipe, OneOf):
            return self._one_of(recipe, wanted)
        if isinstance(recipe, Stack):
            return self._stack(recipe, wanted)
        if isinstance(recipe, Derived):
            return self._derived(recipe, wanted)
        assert isinstance(recipe, Zeros)
        return self._zeros(wanted)

    def _zeros(self, wanted: Wanted) -> LazyTensor:
        shape, dtype = self._shape(wanted.axes), self._dtype
        if wanted.zero_filled:
            self.zero_filled.append(wanted.name)
        make = lambda: torch.zeros(shape, dtype=dtype)
        return LazyTensor(shape, dtype, Held.FRESH, Origin("", "zero-filled"), make, layout=wanted.axes)

    def _take(self, recipe: Take, wanted: Wanted) -> LazyTensor | None:
        if self._left_out(recipe.when):
            return self._zeros(wanted)
        key, tied = self._find(recipe.key, wanted), None
        if recipe.tied_to is not None and self._architecture.ties(self._config):
            tied = self._find(recipe.tied_to, wanted)
        if key is None:
            key = tied
        if key is None:
            if recipe.optional:
                return self._zeros(wanted)
            self.missing.append(" or ".join(self.key(wanted.fill(template)) for template in _alternatives(recipe.key)))
            return None
        if tied is not None and tied in self.used and _same_memory(self._file[key], self._file[tied]):
            self.tied.append((wanted.name, self.used[tied]))
        self.used.setdefault(key, wanted.name)
        return self._viewed(recipe, key, wanted)

    def _one_of(self, recipe: OneOf, wanted: Wanted) -> LazyTensor | None:
        """Reads the alternative that the file has; a derived one is there if all that it is made of is."""
        found: list[Take | Derived] = []
        names: list[str] = []
        for one in recipe.alternatives:
            parts = one.of if isinstance(one, Derived) else (one,)
            if all(self._left_out(part.when) for part in parts):
                return self._zeros(wanted)
            if all(self._find(part.key, wanted) is not None for part in parts):
                found.append(one)
            names += [self.key(wanted.fill(template)) for part in parts for template in _alternatives(part.key)]
        if len(found) > 1:
            raise UnexpectedTensorError(f"{self._label} holds {' and '.join(names)}, which mean the same.")
        if found:
            return self._read(found[0], wanted)
        self.missing.append(" or ".join(dict.fromkeys(names)))
        return None

    def _left_out(self, when: When | None) -> bool:
        return when is not None and not when.holds(self._config)

    def _find(self, key: Key, wanted: Wanted) -> str | None:
        """Returns the one alternative that the file has, or None."""
        names = [self.key(wanted.fill(template)) for template in _alternatives(key)]
        found = [name for name in names if name in self._file]
        if len(found) > 1:
            raise UnexpectedTensorError(f"{self._label} holds {' and '.join(map(repr, found))}, which mean the same.")
        return found[0] if found else None

    def _viewed(self, recipe: Take, key: str, wanted: Wanted) -> LazyTensor | None:
        source = self._file[key]
        if source.packed is not None:
            return self._packed(recipe, key, source, source.packed, wanted)
        return self._seen(recipe, key, source, wanted)

    def _seen(self, recipe: Take, key: str, source: LazyTensor, wanted: Wanted) -> LazyTensor | None:
        first = recipe.first_row
        view = self._view(recipe, wanted)
        expected = (view.shape[0] + first, *view.shape[1:]) if view.shape else ()
        if source.shape != expected:
            self.mismatched.setdefault(key, self._mismatch(source, key, wanted.name, recipe.layout, expected))
            return None
        see: Callable[[Tensor], Tensor] = (lambda tensor: view(tensor[first:])) if first else view
        out = source.view(see, view.result, wanted.axes)
        return replace(out, held=Held.FRESH, sources=(source,), whole=0) if view.copies else out

    def _packed(
        self, recipe: Take, key: str, source: LazyTensor, packing: Packing, wanted: Wanted
    ) -> LazyTensor | None:
        """Returns a packed matrix, or the packed rows that are ours of it, with their scales.

        bitsandbytes keeps [outputs inputs], also of a matrix that the file's own layout has the other way round.
        """
        transposed = self._architecture.is_transposed(key)
        view = self._view(recipe, wanted)
        expected = (view.shape[0] + recipe.first_row, *view.shape[1:])
        if source.shape != (expected[::-1] if transposed else expected):
            self.mismatched.setdefault(key, self._mismatch(source, key, wanted.name, recipe.layout, expected))
            return None
        whole = not recipe.first_row and not view.copies
        runs = rows_taken(view, packing.shape, transposed, wanted.axes) if whole else None
        if runs is not None and packing.can_gather(runs):
            return rows_of(source, runs, view.result, wanted.axes)
        why = "its columns are rearranged" if runs is None else "its rows do not end where blocks of scales do"
        self.unpacked[wanted.name] = f"{key} is packed, and {why}"
        return self._seen(recipe, key, as_in_file(source, transposed), wanted)

    def _view(self, recipe: Take, wanted: Wanted) -> View:
        pick = {axis: wanted.fill(one) if isinstance(one, str) else one for axis, one in recipe.pick.items()}
        # Layers and experts alike have the same view: it depends on what was picked and not on whose it is.
        same = (id(recipe), wanted.axes, tuple(pick.items()))
        if same not in self._views:
            numbers = {name: value for name, value in self._config.items() if isinstance(value, int)}
            known = {**numbers, **self._sizes}
            sizes = {**self._sizes, **{axis: evaluate(size, known) for axis, size in recipe.sizes.items()}}
            self._views[same] = make_view(recipe.layout, wanted.axes, sizes, pick, recipe.merge)
        return self._views[same]

    def _mismatch(self, source: LazyTensor, key: str, name: str, layout: str, expected: tuple[int, ...]) -> str:
        where = f"   in {source.origin.container}" if source.origin.container else ""
        axes = [axis for dimension in parse(layout) for axis in dimension if axis in self._sizes]
        sizes = ", ".join(f"{axis} is {self._sizes[axis]}" for axis in axes)
        return (
            f"{name} of {self._label}\n"
            f"  on disk:   {key}  {source.shape} {str(source.dtype)[6:]}{where}\n"
            f"  declared:  {layout} = {expected}   {self._architecture.file}\n"
            f"  {sizes} by {self._architecture.said_by}; are these files of one checkpoint?"
        )

    def _stack(self, recipe: Stack, wanted: Wanted) -> LazyTensor | None:
        if self._left_out(recipe.when):
            return self._zeros(wanted)
        axes = wanted.axes.split()
        place = axes.index(recipe.over)
        each = replace(wanted, axes=" ".join(axes[:place] + axes[place + 1 :]))
        take = Take(recipe.key, recipe.layout)
        found = [self._take(take, replace(each, entry=entry)) for entry in range(self._sizes[recipe.over])]
        parts = tuple(_numbers(part) for part in found if part is not None)
        if len(parts) < len(found):
            return None
        make = lambda: torch.stack([part.make() for part in parts], dim=place)
        return self._fresh(wanted, make, parts, f"stacked over {recipe.over}")

    def _derived(self, recipe: Derived, wanted: Wanted) -> LazyTensor | None:
        found = [self._take(one, replace(wanted, axes=_axes_left(one), zero_filled=False)) for one in recipe.of]
        parts = tuple(_numbers(part) for part in found if part is not None)
        if len(parts) < len(found):
            return None
        shape = self._shape(wanted.axes)

        def make() -> Tensor:
            out = recipe.function(*(part.make() for part in parts))
            assert tuple(out.shape) == shape, f"{wanted.name}: {tuple(out.shape)} is not {wanted.axes} = {shape}"
            return out

        if recipe.dtype is not None:
            self.packed_parts.update(key for one in recipe.of if (key := self._find(one.key, wanted)) is not None)
        dtype = parts[0].dtype if recipe.dtype is None else recipe.dtype
        promise = self._fresh(wanted, Computed(dtype, parts[0].device, make), parts, recipe.step)
        return replace(promise, dtype=dtype)

    def _fresh(
        self, wanted: Wanted, make: Callable[[], Tensor], parts: tuple[LazyTensor, ...], step: str
    ) -> LazyTensor:
        first = parts[0]
        return LazyTensor(
            self._shape(wanted.axes),
            first.dtype,
            Held.FRESH,
            first.origin.then(step),
            make,
            device=first.device,
            layout=wanted.axes,
            sources=parts,
        )

    def _shape(self, axes: str) -> tuple[int, ...]:
        return tuple(self._sizes[axis] for axis in axes.split())


def _alternatives(key: Key) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else key


def _axes_left(recipe: Take) -> str:
    """Returns the axes of a layout, all apart, without those that an index picks from."""
    indexed = {axis for axis, pick in recipe.pick.items() if isinstance(pick, int) or ":" not in pick}
    axes = [axis for dimension in parse(recipe.layout) for axis in dimension]
    return " ".join(axis for axis in axes if axis != "1" and axis not in indexed)


def _numbers(promise: LazyTensor) -> LazyTensor:
    """Returns a promise of numbers: what is computed of a packed matrix needs them."""
    return promise if promise.packed is None else dequantized(promise)


def _same_memory(one: LazyTensor, other: LazyTensor) -> bool:
    """Whether two promises are of one tensor: by key in a file, by address in a live model, where looking is free."""
    if one is other:
        return True
    if one.held is not Held.BORROWED or other.held is not Held.BORROWED or one.shape != other.shape:
        return False
    return one.make().data_ptr() == other.make().data_ptr()


def _some(names: Iterable[str], limit: int = 5) -> str:
    listed = list(names)
    return ", ".join(listed[:limit]) + (f" … ({len(listed)} in all)" if len(listed) > limit else "")
