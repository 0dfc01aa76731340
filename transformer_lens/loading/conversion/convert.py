"""Reads a table: turns the tensors of a file into our parameters, by views."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.layout import evaluate, make_view, parse
from transformer_lens.loading.conversion.recipes import Derived, Key, Recipe, Stack, Take, Zeros
from transformer_lens.loading.conversion.schema import axis_sizes, schema
from transformer_lens.loading.errors import LayoutMismatchError, MissingTensorError, UnexpectedTensorError
from transformer_lens.loading.weights import Held, LazyTensor, Origin, Weights

_BLOCK = re.compile(r"blocks\.(\d+)\.(.*)")


@dataclass(frozen=True)
class Converted:
    """The result of a conversion.

    Attributes:
        weights: In our names, order and axes.
        used: Keys of the file that some parameter reads.
        dropped: Keys that none reads, each with the reason.
        zero_filled: Our names that the file has nothing for.
        tied: Our names that read the same tensor as another: (name, the other).
    """

    weights: Weights
    used: tuple[str, ...]
    dropped: Mapping[str, str]
    zero_filled: tuple[str, ...]
    tied: tuple[tuple[str, str], ...]


class _Conversion:
    """The state of one conversion; gathers everything that is wrong before it raises."""

    def __init__(
        self,
        file: Weights,
        architecture: Architecture,
        cfg: HookedTransformerConfig,
        config: Mapping[str, Any],
        label: str,
    ) -> None:
        self.file, self.architecture, self.cfg, self.config, self.label = file, architecture, cfg, config, label
        self.sizes = axis_sizes(cfg)
        self.prefix = self._find_prefix()
        self.used: dict[str, str] = {}
        self.zero_filled: list[str] = []
        self.tied: list[tuple[str, str]] = []
        self.missing: list[str] = []
        self.mismatched: list[str] = []
        self.dtype = file[self.prefix + architecture.anchor].dtype

    def _find_prefix(self) -> str:
        prefix, anchor = self.architecture.prefix, self.architecture.anchor
        found = [candidate for candidate in dict.fromkeys((prefix, "")) if candidate + anchor in self.file]
        if len(found) == 1:
            return found[0]
        if found:
            raise UnexpectedTensorError(
                f"{self.label} holds both {found[0] + anchor!r} and {anchor!r}: two models in one checkpoint?"
            )
        raise MissingTensorError(
            f"{self.label} holds neither {prefix + anchor!r} nor {anchor!r}, which every {self.architecture.name} has.\n"
            f"  it holds: {_some(self.file)}\n"
            "  does config.json belong to these weights?"
        )

    def key(self, template: str, layer: int | None) -> str:
        """Fills a template."""
        out = template.replace("{p}", self.prefix)
        return out if layer is None else out.replace("{i}", str(layer))

    def find(self, key: Key, layer: int | None) -> str | None:
        """Returns the one alternative that the file has, or None."""
        names = [self.key(template, layer) for template in ((key,) if isinstance(key, str) else key)]
        found = [name for name in names if name in self.file]
        if len(found) > 1:
            raise UnexpectedTensorError(f"{self.label} holds {' and '.join(map(repr, found))}, which mean the same.")
        return found[0] if found else None

    def parameter(self, name: str, axes: str) -> LazyTensor | None:
        """Returns the promise of one of our parameters."""
        block = _BLOCK.match(name)
        layer = int(block.group(1)) if block else None
        stem = (block.group(2) if block else name).replace("._", ".")
        table = self.architecture.block if block else self.architecture.once
        recipe: Recipe = table.get(stem, Zeros())
        if isinstance(recipe, Take):
            return self.take(recipe, name, axes, layer)
        if isinstance(recipe, Stack):
            return self.stack(recipe, name, axes, layer)
        if isinstance(recipe, Derived):
            return self.derived(recipe, name, axes, layer)
        return self.zeros(name, axes)

    def zeros(self, name: str, axes: str) -> LazyTensor:
        """Promises zeros."""
        shape = tuple(self.sizes[axis] for axis in axes.split())
        dtype = self.dtype
        self.zero_filled.append(name)
        return LazyTensor(
            shape, dtype, Held.FRESH, Origin("", "zero-filled"), lambda: torch.zeros(shape, dtype=dtype), layout=axes
        )

    def take(self, recipe: Take, name: str, axes: str, layer: int | None) -> LazyTensor | None:
        """Promises a view of one tensor of the file."""
        if recipe.when is not None and not recipe.when.holds(self.config):
            return self.zeros(name, axes)
        key = self.find(recipe.key, layer)
        if key is None and recipe.tied_to is not None and self.architecture.ties(self.config):
            key = self.find(recipe.tied_to, layer)
        if key is None:
            if recipe.optional:
                return self.zeros(name, axes)
            alternatives = (recipe.key,) if isinstance(recipe.key, str) else recipe.key
            self.missing.append(" or ".join(self.key(template, layer) for template in alternatives))
            return None
        if key in self.used and recipe.tied_to is not None:
            self.tied.append((name, self.used[key]))
        self.used.setdefault(key, name)
        return self.viewed(recipe, key, name, axes)

    def viewed(self, recipe: Take, key: str, name: str, axes: str) -> LazyTensor | None:
        """Promises a tensor of the file in the axes asked for."""
        source = self.file[key]
        sizes = {**self.sizes, **{axis: evaluate(size, self.sizes) for axis, size in recipe.sizes.items()}}
        view = make_view(recipe.layout, axes, sizes, recipe.pick, recipe.merge)
        first = recipe.first_row
        expected = (view.shape[0] + first, *view.shape[1:])
        if source.shape != expected:
            self.mismatched.append(self._mismatch(source, key, name, recipe.layout, expected))
            return None

        def see(tensor: Tensor) -> Tensor:
            return view(tensor[first:] if first else tensor)

        out = source.view(see, view.result, axes)
        return replace(out, held=Held.FRESH, sources=(source,)) if view.copies else out

    def _mismatch(self, source: LazyTensor, key: str, name: str, layout: str, expected: tuple[int, ...]) -> str:
        where = f"   in {source.origin.container}" if source.origin.container else ""
        return (
            f"{name} of {self.label}\n"
            f"  on disk:   {key}  {source.shape} {str(source.dtype)[6:]}{where}\n"
            f"  declared:  {layout} = {expected}   architectures/{self.architecture.model_type}.py\n"
            f"  {self._sizes_of(layout)} by config.json; are these files of one checkpoint?"
        )

    def _sizes_of(self, layout: str) -> str:
        axes = [axis for dimension in parse(layout) for axis in dimension if axis in self.sizes]
        return ", ".join(f"{axis} is {self.sizes[axis]}" for axis in axes)

    def stack(self, recipe: Stack, name: str, axes: str, layer: int | None) -> LazyTensor | None:
        """Promises several tensors stacked."""
        inner = " ".join(axis for axis in axes.split() if axis != recipe.over)
        parts: list[LazyTensor] = []
        for entry in range(self.sizes[recipe.over]):
            template = recipe.key.replace("{e}", str(entry))
            part = self.take(Take(template, recipe.layout), name, inner, layer)
            if part is None:
                return None
            parts.append(part)
        axis = axes.split().index(recipe.over)
        shape = [self.sizes[axis_name] for axis_name in axes.split()]
        return LazyTensor(
            tuple(shape),
            parts[0].dtype,
            Held.FRESH,
            parts[0].origin.then(f"stacked over {recipe.over}"),
            lambda: torch.stack([part.make() for part in parts], dim=axis),
            device=parts[0].device,
            layout=axes,
            sources=tuple(parts),
        )

    def derived(self, recipe: Derived, name: str, axes: str, layer: int | None) -> LazyTensor | None:
        """Promises a computed value."""
        parts: list[LazyTensor] = []
        for one in recipe.of:
            flat = " ".join(axis for dimension in parse(one.layout) for axis in dimension)
            part = self.take(one, name, flat, layer)
            if part is None:
                return None
            parts.append(part)
        return LazyTensor(
            tuple(self.sizes[axis] for axis in axes.split()),
            parts[0].dtype,
            Held.FRESH,
            parts[0].origin.then(recipe.step),
            lambda: recipe.function(*(part.make() for part in parts)),
            device=parts[0].device,
            layout=axes,
            sources=tuple(parts),
        )

    def unread(self) -> dict[str, str]:
        """Returns the keys that no parameter reads, each with the reason.

        Raises:
            UnexpectedTensorError: There is no reason for some.
        """
        templates: dict[str, str] = {}
        for template, reason in self.architecture.dropped.items():
            if "{i}" in template:
                templates |= {self.key(template, layer): reason for layer in range(self.cfg.n_layers)}
            else:
                templates[self.key(template, None)] = reason
        beyond = self.architecture.beyond(self.cfg.n_layers)
        dropped: dict[str, str] = {}
        strange: list[str] = []
        for key in self.file:
            if key in self.used:
                continue
            if key in templates:
                dropped[key] = templates[key]
            elif beyond(key):
                dropped[key] = f"a layer beyond the {self.cfg.n_layers} that were asked for"
            else:
                strange.append(key)
        if strange:
            raise UnexpectedTensorError(
                f"{self.label} holds tensors that {self.architecture.name} has no place for:\n"
                + "\n".join(f"  {line}" for line in collapse(strange))
                + f"\n  the table is architectures/{self.architecture.model_type}.py; does config.json belong to "
                "these weights (a bias that it switches off, another architecture)?"
            )
        return dropped


def convert(
    file: Weights,
    architecture: Architecture,
    cfg: HookedTransformerConfig,
    config: Mapping[str, Any],
    label: str,
) -> Converted:
    """Turns the tensors of a file into our parameters; nothing is read.

    Args:
        file: Promises by the names in the file.
        architecture: Its table.
        cfg: The config of the model to be.
        config: The parsed config.json.
        label: Names the checkpoint in messages.

    Raises:
        MissingTensorError: The file lacks tensors; all are named at once, layers together.
        LayoutMismatchError: Tensors have other shapes than their layouts say.
        UnexpectedTensorError: The file holds tensors that nothing reads and nobody drops by name.
    """
    state = _Conversion(file, architecture, cfg, config, label)
    out: dict[str, LazyTensor] = {}
    for name, axes in schema(cfg).items():
        promise = state.parameter(name, axes)
        if promise is not None:
            out[name] = promise
    if state.missing:
        raise MissingTensorError(
            f"{label} lacks tensors that its config.json asks for:\n"
            + "\n".join(f"  {line}" for line in collapse(state.missing))
            + f"\n  the table is architectures/{architecture.model_type}.py; is the download complete?"
        )
    if state.mismatched:
        shown = state.mismatched[:4]
        more = len(state.mismatched) - len(shown)
        raise LayoutMismatchError("\n".join(shown) + (f"\n(and {more} more tensors)" if more else ""))
    dropped = state.unread()
    return Converted(Weights(out), tuple(state.used), dropped, tuple(state.zero_filled), tuple(state.tied))


def collapse(names: Iterable[str], limit: int = 12) -> list[str]:
    """Returns names with the same words and different numbers as one: ``h.{0…11}.attn.bias``."""
    groups: dict[str, list[int]] = {}
    for name in names:
        found = re.search(r"\.(\d+)\.", name)
        template = name if found is None else f"{name[: found.start(1)]}#{name[found.end(1) :]}"
        groups.setdefault(template, []).extend([] if found is None else [int(found.group(1))])
    lines = []
    for template, numbers in groups.items():
        if not numbers:
            lines.append(template)
        elif len(numbers) == 1:
            lines.append(template.replace("#", str(numbers[0])))
        else:
            whole = sorted(numbers) == list(range(min(numbers), max(numbers) + 1))
            inside = f"{min(numbers)}…{max(numbers)}" if whole else ",".join(map(str, sorted(numbers)))
            lines.append(template.replace("#", "{" + inside + "}"))
    return lines if len(lines) <= limit else [*lines[:limit], f"… and {len(lines) - limit} more"]


def _some(names: Iterable[str], limit: int = 5) -> str:
    listed = list(names)
    return ", ".join(listed[:limit]) + (f" … ({len(listed)} in all)" if len(listed) > limit else "")
