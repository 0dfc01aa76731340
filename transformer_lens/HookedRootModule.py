"""The root of a model with hook points: finds them by name, hangs hooks on them, and runs with hooks or a cache."""

import difflib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from torch import Tensor, nn

from transformer_lens.caching_hook import CachingHook
from transformer_lens.hook_points import (
    DeviceType,
    Direction,
    HookFunction,
    HookIntrospectionMixin,
    HookPoint,
    NamesFilter,
    accepts,
)
from transformer_lens.hook_table import HookPointsView
from transformer_lens.utilities.devices import warn_if_mps  # noqa: F401  upstream has it here
from transformer_lens.utilities.slice import Slice, SliceInput

__all__ = ["HookedRootModule"]

Root = TypeVar("Root", bound="HookedRootModule")
HookName = str | Callable[[str], bool]
NamedHook = tuple[HookName, Callable[..., Any]]


class HookedRootModule(HookIntrospectionMixin, nn.Module):
    """A module whose hook points have names, and that adds, runs and removes hooks by them.

    A subclass calls `setup` at the end of its ``__init__``, and again whenever modules were put in or taken out.

    Attributes:
        mod_dict: Every submodule by its path, rebuilt by `setup`.
        hook_dict: Every `HookPoint` by its path, likewise.
        is_caching: Hooks that fill a cache have been made and `reset_hooks` not called since.
        context_level: How many `hooks` contexts are open.
        name: Set by a root module that contains this one.
    """

    name: str | None
    mod_dict: dict[str, nn.Module]
    hook_dict: dict[str, HookPoint]

    def __init__(self, *args: Any) -> None:
        super().__init__()
        self.is_caching = False
        self.context_level = 0
        self.mod_dict = {}
        self.hook_dict = {}

    def setup(self) -> None:
        """Names every submodule by its path, and lists modules and hook points under these names, in new dicts."""
        self.mod_dict = {}
        self.hook_dict = {}
        for name, module in self.named_modules():
            if name == "":
                continue
            module.name = name
            self.mod_dict[name] = module
            if isinstance(module, HookPoint):
                self.hook_dict[name] = module

    def hook_points(self) -> HookPointsView:
        """Returns the hook points, in the order of `hook_dict`; printed, they are a table."""
        return HookPointsView(self.hook_dict)

    def remove_all_hook_fns(
        self,
        direction: Literal["fwd", "bwd", "both"] = "both",
        including_permanent: bool = False,
        level: int | None = None,
    ) -> None:
        """Removes hooks from every point; the arguments are those of `HookPoint.remove_hooks`."""
        for point in self.hook_points():
            point.remove_hooks(direction, including_permanent=including_permanent, level=level)

    def clear_contexts(self) -> None:
        """Empties every point's ``ctx``."""
        for point in self.hook_points():
            point.clear_context()

    def reset_hooks(
        self,
        clear_contexts: bool = True,
        direction: Literal["fwd", "bwd", "both"] = "both",
        including_permanent: bool = False,
        level: int | None = None,
    ) -> None:
        """Removes hooks from every point.

        Args:
            clear_contexts: Empty every point's ``ctx`` as well.
            direction: Which hooks: "fwd", "bwd" or "both".
            including_permanent: Permanent ones too.
            level: Only those of this depth of context; None means of any.
        """
        if clear_contexts:
            self.clear_contexts()
        self.remove_all_hook_fns(direction, including_permanent, level=level)
        self.is_caching = False

    def check_hooks_to_add(
        self,
        hook_point: HookPoint,
        hook_point_name: str,
        hook: HookFunction,
        dir: Direction = "fwd",
        is_permanent: bool = False,
        prepend: bool = False,
    ) -> None:
        """Refuses a hook that would never run; does nothing here, for subclasses to override."""

    def check_and_add_hook(
        self,
        hook_point: HookPoint,
        hook_point_name: str,
        hook: HookFunction,
        dir: Direction = "fwd",
        is_permanent: bool = False,
        level: int | None = None,
        prepend: bool = False,
    ) -> None:
        """Adds a hook to a point, once `check_hooks_to_add` has let it pass."""
        self.check_hooks_to_add(hook_point, hook_point_name, hook, dir=dir, is_permanent=is_permanent, prepend=prepend)
        hook_point.add_hook(hook, dir=dir, is_permanent=is_permanent, level=level, prepend=prepend)

    def add_hook(
        self,
        name: HookName,
        hook: HookFunction,
        dir: Direction = "fwd",
        is_permanent: bool = False,
        level: int | None = None,
        prepend: bool = False,
    ) -> None:
        """Adds a hook to the point of a name, or to every point whose name satisfies a predicate.

        Args:
            name: The name, or the predicate.
            hook: Called as ``hook(tensor, hook=point)``.
            dir: "fwd" for activations, "bwd" for their gradients.
            is_permanent: The hook stays until permanent ones are removed too.
            level: Depth of the `hooks` context that it belongs to; None for none.
            prepend: The hook runs before those already there, rather than after.

        Raises:
            KeyError: No hook point has this name.
        """
        for point_name, point in self._points(name):
            self.check_and_add_hook(point, point_name, hook, dir, is_permanent, level, prepend)

    def add_perma_hook(self, name: HookName, hook: HookFunction, dir: Direction = "fwd") -> None:
        """Adds a hook, as `add_hook` does, that stays until permanent ones are removed too."""
        self.add_hook(name, hook, dir=dir, is_permanent=True)

    def _points(self, name: HookName) -> list[tuple[str, HookPoint]]:
        if not isinstance(name, str):
            return [(key, point) for key, point in self.hook_dict.items() if name(key)]
        if name in self.hook_dict:
            return [(name, self.hook_dict[name])]
        if name in self.mod_dict:
            raise KeyError(f"{name!r} is a {type(self.mod_dict[name]).__name__}, not a hook point")
        nearest = difflib.get_close_matches(name, self.hook_dict, n=3)
        raise KeyError(f"no hook point is named {name!r}" + (f"; nearest: {', '.join(nearest)}" if nearest else ""))

    def _tell_of_unmatched(self, names_filter: NamesFilter, accepted: list[str]) -> None:
        """Says which names of a filter no hook point has; nothing of a filter that is empty.

        It warns where none of the names is one. Where some are, or a predicate is false of everything, which may be on
        purpose, it is logged.
        """
        if callable(names_filter):
            if not accepted and self.hook_dict:
                logging.getLogger(__name__).warning(
                    "names_filter accepts none of the %d hook points; they have names like %s",
                    *(len(self.hook_dict), ", ".join(list(self.hook_dict)[:: max(1, len(self.hook_dict) // 3)][:3])),
                )
            return
        given = [names_filter] if isinstance(names_filter, str) else list(names_filter or ())
        for name in given:
            if name not in self.hook_dict:
                nearest = difflib.get_close_matches(str(name), self.hook_dict, n=3)
                hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
                told = f"names_filter: no hook point is named {name!r}{hint}"
                if accepted:
                    logging.getLogger(__name__).warning(told)
                else:
                    warnings.warn(told, stacklevel=4)

    @contextmanager
    def hooks(
        self: Root,
        fwd_hooks: Sequence[NamedHook] = (),
        bwd_hooks: Sequence[NamedHook] = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> Iterator[Root]:
        """Hangs hooks on the model for the time of a ``with`` block; blocks may be nested.

        Args:
            fwd_hooks: Pairs of a hook point's name, or a predicate of names, and a hook on activations.
            bwd_hooks: Likewise, of hooks on gradients.
            reset_hooks_end: Remove, at the end, the hooks added at this depth of nesting; otherwise they stay.
            clear_contexts: With `reset_hooks_end`, empty every point's ``ctx`` at the end.

        Yields:
            The model.

        Raises:
            KeyError: No hook point has a given name.
        """
        self.context_level += 1
        try:
            directions: tuple[tuple[Direction, Sequence[NamedHook]], ...] = (("fwd", fwd_hooks), ("bwd", bwd_hooks))
            for dir, named_hooks in directions:
                for name, hook in named_hooks:
                    for _, point in self._points(name):
                        point.add_hook(hook, dir=dir, level=self.context_level)
            yield self
        finally:
            if reset_hooks_end:
                self.reset_hooks(clear_contexts, including_permanent=False, level=self.context_level)
            self.context_level -= 1

    def run_with_hooks(
        self,
        *model_args: Any,
        fwd_hooks: Sequence[NamedHook] = (),
        bwd_hooks: Sequence[NamedHook] = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        **model_kwargs: Any,
    ) -> Any:
        """Runs the model with hooks that are there for this run only.

        Args:
            *model_args: Passed to the model.
            fwd_hooks: Pairs of a hook point's name, or a predicate of names, and a hook on activations.
            bwd_hooks: Likewise, of hooks on gradients; they are called in every backward pass through this run, also
                after they were removed.
            reset_hooks_end: Remove the hooks afterwards.
            clear_contexts: With `reset_hooks_end`, empty every point's ``ctx`` afterwards.
            **model_kwargs: Passed to the model.

        Returns:
            What the model returns.
        """
        with self.hooks(fwd_hooks, bwd_hooks, reset_hooks_end, clear_contexts):
            return self(*model_args, **model_kwargs)

    def run_with_cache(
        self,
        *model_args: Any,
        names_filter: NamesFilter = None,
        device: DeviceType = None,
        remove_batch_dim: bool = False,
        incl_bwd: bool = False,
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        pos_slice: Slice | SliceInput | None = None,
        **model_kwargs: Any,
    ) -> tuple[Any, dict[str, Tensor]]:
        """Runs the model and keeps its activations.

        Args:
            *model_args: Passed to the model.
            names_filter: Which activations to keep: one name, several, or a predicate; None means all.
            device: Where to keep them; None means where they are.
            remove_batch_dim: Keep the first row of the batch, without its axis.
            incl_bwd: Call ``backward()`` on the output, which must be a scalar, and keep the gradients too.
            reset_hooks_end: Remove the hooks that keep them afterwards.
            clear_contexts: With `reset_hooks_end`, empty every point's ``ctx`` afterwards.
            pos_slice: Which positions to keep; None means all.
            **model_kwargs: Passed to the model.

        Returns:
            What the model returns, and a dict from names to activations, ``name + "_grad"`` for gradients.
        """
        cache, fwd, bwd = self.get_caching_hooks(
            names_filter, incl_bwd, device, remove_batch_dim=remove_batch_dim, pos_slice=pos_slice
        )
        with self.hooks(fwd, bwd, reset_hooks_end=reset_hooks_end, clear_contexts=clear_contexts):
            output = self(*model_args, **model_kwargs)
            if incl_bwd:
                output.backward()
        return output, cache

    def get_caching_hooks(
        self,
        names_filter: NamesFilter = None,
        incl_bwd: bool = False,
        device: DeviceType = None,
        remove_batch_dim: bool = False,
        cache: dict[str, Tensor] | None = None,
        pos_slice: Slice | SliceInput | None = None,
    ) -> tuple[dict[str, Tensor], list[NamedHook], list[NamedHook]]:
        """Makes the hooks of `run_with_cache`, without adding them.

        Args:
            names_filter: Which activations to keep: one name, several, or a predicate; None means all.
            incl_bwd: Keep gradients too.
            device: Where to keep them; None means where they are.
            remove_batch_dim: Keep the first row of the batch, without its axis.
            cache: The dict to fill; None means a new one.
            pos_slice: Which positions to keep; None means all.

        Returns:
            The dict, the hooks on activations and the hooks on gradients.
        """
        kept: dict[str, Tensor] = {} if cache is None else cache
        positions = Slice.unwrap(pos_slice)
        keep, keep_gradient = (
            CachingHook(kept, is_gradient, device, remove_batch_dim, positions) for is_gradient in (False, True)
        )
        accepted = accepts(names_filter)
        names = [name for name in self.hook_dict if accepted(name)]
        self._tell_of_unmatched(names_filter, names)
        fwd: list[NamedHook] = [(name, keep) for name in names]
        bwd: list[NamedHook] = [(name, keep_gradient) for name in names] if incl_bwd else []
        self.is_caching = True
        return kept, fwd, bwd

    def add_caching_hooks(
        self,
        names_filter: NamesFilter = None,
        incl_bwd: bool = False,
        device: DeviceType = None,
        remove_batch_dim: bool = False,
        cache: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Adds hooks that keep activations of every run, until `reset_hooks`; the arguments of `get_caching_hooks`.

        Returns:
            The dict that each run fills.
        """
        kept, fwd, bwd = self.get_caching_hooks(names_filter, incl_bwd, device, remove_batch_dim, cache)
        for name, hook in fwd:
            self._points(name)[0][1].add_hook(hook, dir="fwd")
        for name, hook in bwd:
            self._points(name)[0][1].add_hook(hook, dir="bwd")
        return kept

    def cache_all(
        self,
        cache: dict[str, Tensor] | None,
        incl_bwd: bool = False,
        device: DeviceType = None,
        remove_batch_dim: bool = False,
    ) -> None:
        """Does what `add_caching_hooks` does with every activation; deprecated, and says so."""
        self.cache_some(cache, lambda name: True, incl_bwd, device, remove_batch_dim)

    def cache_some(
        self,
        cache: dict[str, Tensor] | None,
        names: Callable[[str], bool],
        incl_bwd: bool = False,
        device: DeviceType = None,
        remove_batch_dim: bool = False,
    ) -> None:
        """Does what `add_caching_hooks` does with the activations that `names` accepts; deprecated, and says so."""
        logging.getLogger(__name__).warning(
            "cache_all and cache_some are deprecated: use run_with_cache or add_caching_hooks"
        )
        self.add_caching_hooks(names, incl_bwd, device, remove_batch_dim, cache)
