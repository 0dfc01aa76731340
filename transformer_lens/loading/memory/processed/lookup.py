"""A load and the cache: what is there for it, and keeping what it has made."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from transformer_lens.loading.checkpoint.checkpoint import Checkpoint
from transformer_lens.loading.checkpoint.io import choose_io
from transformer_lens.loading.errors import ProcessedCacheWarning
from transformer_lens.loading.memory.processed.entry_file import BrokenEntry, EntryFile, damaged, open_entry
from transformer_lens.loading.memory.processed.folder import ENTRY, cache_folder, is_wanted
from transformer_lens.loading.memory.processed.key import Key, key_of, state_of
from transformer_lens.loading.memory.processed.stamp import is_stamped, note_use, stamp
from transformer_lens.loading.memory.processed.write import turn, write_entry
from transformer_lens.loading.processing import Plan
from transformer_lens.loading.weights import Held, LazyTensor, Weights

TAKEN, TO_BE_KEPT, KEPT, NOT_KEPT = "taken", "to be kept", "kept", "not kept"


@dataclass(frozen=True)
class Lookup:
    """What the cache has for a load, or will have after it.

    Attributes:
        outcome: "taken", "to be kept", "kept", "not kept"; empty where the cache is not used.
        path: The entry.
        reason: Why it was not kept, or was made again.
        weights: On "taken", all promises: the entry's, and those of the checkpoint that nothing has changed.
        plain: The promises without the cache.
        seconds: That checking and keeping took.
    """

    outcome: str = ""
    path: Path = Path()
    reason: str = ""
    weights: Weights = field(default_factory=Weights)
    plain: Weights = field(default_factory=Weights)
    seconds: float = 0.0
    _key: Key = field(default_factory=lambda: Key({}, {}))
    _entry: EntryFile | None = None
    _made: tuple[str, ...] = ()
    _checkpoint: Checkpoint | None = None
    _dtype: str = ""
    _is_replaced: bool = False

    def check(self) -> None:
        """Reads the numbers of an entry that cannot be trusted unread.

        Raises:
            BrokenEntry: They are not what was written.
            OSError: The entry is gone.
        """
        assert self._entry is not None
        if not is_stamped(self.path):
            wrong = damaged(self._entry)
            if wrong:
                raise BrokenEntry(f"{self.path.name} has other numbers than were written ({wrong[0]}, …)")
            stamp(self.path)
        note_use(self.path)

    def without_entry(self, problem: object) -> Lookup:
        """Returns what is to be done when the entry turns out to be broken: the weights are made again."""
        return replace(self, outcome=TO_BE_KEPT, reason=f"made again: {problem}", weights=self.plain, _is_replaced=True)

    def keep(self, module: nn.Module) -> Lookup:
        """Writes what a load has made, if it is to be kept, and returns what came of it.

        Args:
            module: Its parameters are loaded.

        Warns:
            ProcessedCacheWarning: An entry was broken or stale, or nothing could be written.
        """
        if self.outcome != TO_BE_KEPT:
            return self
        assert self._checkpoint is not None
        if self._is_replaced:
            _warn(f"The processed weights of {self._checkpoint.label} are {self.reason}.")
        start = time.perf_counter()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with turn(self.path) as is_ours:
                if not is_ours:
                    return replace(self, outcome=NOT_KEPT, reason="another process is writing the same")
                self._write(module)
        except (OSError, _Changed) as error:
            problem = str(error) if isinstance(error, _Changed) else f"{cache_folder()} takes no entry ({error})"
            _warn(f"The processed weights of {self._checkpoint.label} are not kept: {problem}.")
            return replace(self, outcome=NOT_KEPT, reason=problem, seconds=time.perf_counter() - start)
        return replace(self, outcome=KEPT, seconds=time.perf_counter() - start)

    def _write(self, module: nn.Module) -> None:
        """Writes the entry.

        Raises:
            OSError: It cannot be written.
            _Changed: It would not be right.
        """
        assert self._checkpoint is not None
        parameters = dict(module.named_parameters(remove_duplicate=False))
        if state_of(self._checkpoint.files, self._checkpoint.config) != self._key.state:
            raise _Changed("the checkpoint's files have changed while they were read")
        write_entry(
            self.path, self._key, {name: parameters[name] for name in self._made}, self._checkpoint.label, self._dtype
        )
        stamp(self.path)


class _Changed(Exception):
    """The sources are not what they were when the load began."""


def look_up(
    wanted: bool | None, weights: Weights, checkpoint: Checkpoint, plan: Plan, dtype: str, io: str = "auto"
) -> Lookup:
    """Says what the cache has for a load. No numbers are read.

    Args:
        wanted: Whether the cache is used; None asks the environment.
        weights: The promises of the load, processed, cast and placed.
        checkpoint: What they are made of.
        plan: The steps that they wait for.
        dtype: Of the parameters, for people.
        io: How an entry is read: "auto", "map" or "read".
    """
    if not is_wanted(wanted):
        return Lookup()
    made = {name: tensor for name, tensor in weights.items() if tensor.held is Held.FRESH}
    why_not = _why_not(checkpoint, made)
    if why_not is not None:
        return Lookup(NOT_KEPT, reason=why_not)
    key = key_of(Weights(made), checkpoint.files, checkpoint.config, plan.steps, plan.norms)
    path = cache_folder() / f"{key.name}{ENTRY}"
    new = Lookup(
        TO_BE_KEPT, path, plain=weights, weights=weights,
        _key=key, _made=tuple(made), _checkpoint=checkpoint, _dtype=dtype,
    )  # fmt: skip
    try:
        entry = open_entry(path)
        stale = _why_stale(entry, key, made)
    except (FileNotFoundError, NotADirectoryError):
        return new
    except (BrokenEntry, OSError) as problem:
        return new.without_entry(problem)
    if stale is not None:
        return new.without_entry(stale)
    mode = choose_io(io, path).mode
    found = {
        name: replace(entry.regions[name].promise(name, mode), layout=tensor.layout) for name, tensor in made.items()
    }
    return replace(new, outcome=TAKEN, weights=weights.updated(found), _entry=entry)


def _why_not(checkpoint: Checkpoint, made: Mapping[str, Any]) -> str | None:
    """Says why a load has nothing to keep."""
    if not checkpoint.files:
        return "the weights of a live model are the caller's, and no file says when they change"
    packed = [name for name, tensor in made.items() if tensor.packed]
    if packed:
        return f"packed weights are not kept ({packed[0]}, …)"
    if checkpoint.kind != "gguf" and not any(tensor.sources for tensor in made.values()):
        return "no weight is changed: the checkpoint's own files are used as they are"
    return None


def _why_stale(entry: EntryFile, key: Key, made: Mapping[str, LazyTensor]) -> str | None:
    """Says why a whole entry is not the one that is wanted."""
    if dict(entry.state) != dict(key.state):
        changed = [
            Path(name).name
            for name in {**entry.state, **key.state}
            if entry.state.get(name) != key.state.get(name)
        ]  # fmt: skip
        return f"{', '.join(changed[:4])} changed since the entry was written"
    wanted = {name: (promise.shape, promise.dtype) for name, promise in made.items()}
    if entry.place != key.place or {name: (one.shape, one.dtype) for name, one in entry.regions.items()} != wanted:
        return f"{entry.path.name} is for other weights than its name says"
    return None


def _warn(text: str) -> None:
    warnings.warn(text, ProcessedCacheWarning, stacklevel=5)
