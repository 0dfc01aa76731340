"""The places in a model where an activation has a name, and can be read or replaced."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import (
    Any,
    Literal,
    Protocol,
    runtime_checkable,
)

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from transformer_lens.utilities.slice import Slice, SliceInput

__all__ = [
    "DeviceType",
    "Direction",
    "HookFunction",
    "HookIntrospectionMixin",
    "HookPoint",
    "LensHandle",
    "NamesFilter",
    "ReadingHook",
    "Slice",
    "SliceInput",
    "accepts",
    "is_plain",
]


@runtime_checkable
class _HookFunctionProtocol(Protocol):
    """What is called with an activation, or with its gradient, and with the `HookPoint` it is at.

    It returns a replacement, or None to leave the tensor as it is (then also where it has written into it). A hook on
    a gradient may return the replacement in a tuple of one, as torch's own hooks do.
    """

    def __call__(self, tensor: Tensor, *, hook: "HookPoint") -> Any: ...


class ReadingHook(ABC):
    """A hook that keeps what it is given and never writes into it, so that it may be given the tensor itself."""

    @abstractmethod
    def __call__(self, tensor: Tensor, *, hook: "HookPoint") -> None:
        """Looks at an activation or a gradient."""


HookFunction = _HookFunctionProtocol
Direction = Literal["fwd", "bwd"]
NamesFilter = Callable[[str], bool] | Sequence[str] | str | None
DeviceType = torch.device | str | None


def accepts(names_filter: NamesFilter) -> Callable[[str], bool]:
    """Turns a filter of hook names into a predicate: None accepts all, a string itself, a sequence its members."""
    if names_filter is None:
        return lambda name: True
    if isinstance(names_filter, str):
        return names_filter.__eq__
    if callable(names_filter):
        return names_filter
    return frozenset(names_filter).__contains__


@dataclass
class LensHandle:
    """One hook at one point, and how long it stays.

    Attributes:
        hook: Takes the hook off again, by ``hook.remove()``.
        is_permanent: The hook stays unless permanent hooks are asked to go.
        context_level: How many `hooks` contexts were open around the one that added it; None if none did.
        user_hook: The function as it was given.
    """

    hook: RemovableHandle
    is_permanent: bool = False
    context_level: int | None = None
    user_hook: Callable[..., Any] | None = None

    def _goes(self, including_permanent: bool, level: int | None) -> bool:
        return (including_permanent or not self.is_permanent) and (level is None or self.context_level == level)


class HookPoint(nn.Module):
    """The identity function, with a name: hooks put here see, and may replace, what passes through.

    Hooks run in the order in which they were added, each on what the one before it returned. A hook on gradients gets
    the gradient with respect to what left this point, and what it returns flows on backwards from here; the hooks that
    were there during the forward pass are the ones that are called, also if they have been taken off since.

    Attributes:
        fwd_hooks, bwd_hooks: Handles of the hooks, in the order in which they run.
        ctx: A place for hooks to keep things in; see `clear_context`.
        name: Path of the attribute in the root module, which sets it; None before.
    """

    name: str | None
    axes: str | None = None
    hook_conversion: Any = None

    def __init__(self, axes: str | None = None) -> None:
        super().__init__()
        self.axes = axes
        self.fwd_hooks: list[LensHandle] = []
        self.bwd_hooks: list[LensHandle] = []
        self.ctx: dict[Any, Any] = {}
        self.name = None
        self._fwd: OrderedDict[int, Callable[..., Any]] = OrderedDict()
        self._bwd: OrderedDict[int, Callable[..., Any]] = OrderedDict()

    def forward(self, x: Tensor) -> Tensor:
        """Passes `x` through the hooks; without any, returns `x` itself."""
        if self._fwd or self._bwd:
            return self._run_hooks(x)
        return x

    def _run_hooks(self, x: Tensor) -> Tensor:
        x = self._through(tuple(self._fwd.values()), x, is_gradient=False)
        if self._bwd and torch.is_grad_enabled() and x.requires_grad:
            # A node of the graph that is this point's alone: the same tensor may pass several points.
            x = x.view_as(x)
            x.register_hook(partial(self._run_gradient_hooks, tuple(self._bwd.values())))
        return x

    def _run_gradient_hooks(self, hooks: tuple[Callable[..., Any], ...], gradient: Tensor) -> Tensor:
        return self._through(hooks, gradient, is_gradient=True)

    def _through(self, hooks: tuple[Callable[..., Any], ...], x: Tensor, is_gradient: bool) -> Tensor:
        """Returns what hooks make of a tensor; those that may write into it get a copy."""
        conversion = self.hook_conversion
        if conversion is None:
            return self._each(hooks, x, is_gradient)
        return conversion.revert(self._each(hooks, conversion.convert(x), is_gradient))

    def _each(self, hooks: tuple[Callable[..., Any], ...], x: Tensor, is_gradient: bool) -> Tensor:
        is_shared = True
        for hook in hooks:
            if isinstance(hook, ReadingHook):
                hook(x, hook=self)
                continue
            if is_shared:
                x, is_shared = x.clone(), False
            replacement = hook(x, hook=self)
            if replacement is not None:
                x = replacement[0] if is_gradient and isinstance(replacement, tuple) else replacement
        return x

    def add_hook(
        self,
        hook: HookFunction,
        dir: Direction = "fwd",
        is_permanent: bool = False,
        level: int | None = None,
        prepend: bool = False,
        alias_names: Sequence[str] | None = None,
    ) -> None:
        """Adds a hook.

        Args:
            hook: Called as ``hook(tensor, hook=self)``.
            dir: "fwd" for activations, "bwd" for their gradients.
            is_permanent: The hook stays until `remove_hooks` is told to include permanent ones.
            level: Depth of the `hooks` context that it belongs to; None for none.
            prepend: The hook runs before those already here, rather than after.
            alias_names: Names under which the hook knows this point: it is called once for each, in order, with a
                hook point that has that name and this one's ``ctx``. None calls it once, with this point.

        Raises:
            ValueError: `dir` is neither.
        """
        if dir not in ("fwd", "bwd"):
            raise ValueError(f"dir must be 'fwd' or 'bwd', not {dir!r}")
        hooks, handles = (self._fwd, self.fwd_hooks) if dir == "fwd" else (self._bwd, self.bwd_hooks)
        removable = RemovableHandle(hooks)
        hooks[removable.id] = hook if alias_names is None else _under_names(hook, alias_names)
        if prepend:
            hooks.move_to_end(removable.id, last=False)
        handles.insert(0 if prepend else len(handles), LensHandle(removable, is_permanent, level, hook))

    def enable_reshape(self, hook_conversion: Any = None) -> None:
        """Shows hooks, forwards and backwards, another form of what passes through.

        Args:
            hook_conversion: Has ``convert(tensor)``, whose result the hooks get, and ``revert(tensor)``, which makes
                the passing form of what they return. None shows hooks the tensor as it passes.
        """
        self.hook_conversion = hook_conversion

    def add_perma_hook(self, hook: HookFunction, dir: Direction = "fwd") -> None:
        """Adds a hook that stays until permanent hooks are removed too."""
        self.add_hook(hook, dir=dir, is_permanent=True)

    def remove_hooks(
        self,
        dir: Literal["fwd", "bwd", "both"] = "fwd",
        including_permanent: bool = False,
        level: int | None = None,
    ) -> None:
        """Removes hooks.

        Args:
            dir: Which: "fwd", "bwd" or "both".
            including_permanent: Permanent ones too.
            level: Only those of this depth of context; None means of any.

        Raises:
            ValueError: `dir` is none of the three.
        """
        for handles in self._chosen(dir):
            staying = []
            for handle in handles:
                if handle._goes(including_permanent, level):
                    handle.hook.remove()
                else:
                    staying.append(handle)
            handles[:] = staying

    def has_hooks(
        self,
        dir: Literal["fwd", "bwd", "both"] = "both",
        including_permanent: bool = True,
        level: int | None = None,
    ) -> bool:
        """Says whether `remove_hooks` with the same arguments would remove any."""
        return any(handle._goes(including_permanent, level) for handles in self._chosen(dir) for handle in handles)

    def _chosen(self, dir: str) -> Iterator[list[LensHandle]]:
        if dir not in ("fwd", "bwd", "both"):
            raise ValueError(f"dir must be 'fwd', 'bwd' or 'both', not {dir!r}")
        if dir != "bwd":
            yield self.fwd_hooks
        if dir != "fwd":
            yield self.bwd_hooks

    def axis(self, *names: str) -> int | None:
        """Returns the place of the first of some axes that is declared; None where none is, or `axes` is unknown."""
        declared = (self.axes or "").split()
        return next((declared.index(name) for name in names if name in declared), None)

    def clear_context(self) -> None:
        """Gives the point a new, empty `ctx`."""
        self.ctx = {}

    def layer(self) -> int:
        """Reads the layer off the name: ``blocks.3.attn.hook_z`` is in layer 3.

        Raises:
            ValueError: The point has no name, or is in no layer.
        """
        for part in (self.name or "").split("."):
            if part.isdigit():
                return int(part)
        raise ValueError(f"hook point {self.name!r} is in no layer")


def _under_names(hook: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """Returns a hook that calls another once for each name, each time on what the call before returned."""

    def under_names(tensor: Tensor, *, hook: HookPoint) -> Tensor:
        for name in names:
            alias = HookPoint(hook.axes)
            alias.name, alias.ctx = name, hook.ctx
            replacement = user_hook(tensor, hook=alias)
            if replacement is not None:
                tensor = replacement[0] if isinstance(replacement, tuple) else replacement
        return tensor

    user_hook = hook
    return under_names


def is_plain(module: nn.Module) -> bool:
    """Says whether calling `module` is sure to do nothing: it is a `HookPoint` itself, with no hook of any kind.

    A subclass, a module put in a hook point's place, torch's own hooks and a ``forward`` set on the instance all count
    as something.
    """
    return (
        type(module) is HookPoint
        and not module._fwd
        and not module._bwd
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and not module._backward_hooks
        and not module._backward_pre_hooks
        and "forward" not in module.__dict__
    )


class HookIntrospectionMixin:
    """Lists the hooks of a model that has its hook points in ``hook_dict``."""

    hook_dict: dict[str, HookPoint]

    def list_hooks(
        self,
        name_filter: NamesFilter = None,
        dir: Literal["fwd", "bwd", "both"] = "both",
        including_permanent: bool = True,
    ) -> dict[str, list[LensHandle]]:
        """Returns the handles by the name of their point; points without any are left out.

        Args:
            name_filter: Which points: one name, several, or a predicate; None means all.
            dir: "fwd", "bwd" or "both".
            including_permanent: Permanent hooks too.
        """
        accepted = accepts(name_filter)
        found = {
            name: [
                handle
                for handles in point._chosen(dir)
                for handle in handles
                if including_permanent or not handle.is_permanent
            ]
            for name, point in self.hook_dict.items()
            if accepted(name)
        }
        return {name: handles for name, handles in found.items() if handles}


def __getattr__(name: str) -> Any:
    """Gives `HookedRootModule` at upstream 2's import path; late, because it lies above this module and imports it."""
    if name == "HookedRootModule":
        return import_module("transformer_lens.HookedRootModule").HookedRootModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
