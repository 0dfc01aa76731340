"""The cache as a whole: what is in it, what is wrong with it, and emptying it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from transformer_lens.loading.memory.processed.entry_file import BrokenEntry, damaged, open_entry
from transformer_lens.loading.memory.processed.folder import CHECKED, ENTRY, LOCK, cache_folder, remove, sweep
from transformer_lens.loading.memory.processed.stamp import last_used, stamp


@dataclass(frozen=True)
class Entry:
    """One file of the cache.

    Attributes:
        key: Its name.
        path: The file.
        label: The checkpoint that it was made of; empty where it is broken.
        nbytes: Its size.
        created: When it was written.
        last_used: When a load last took it.
        flags: The steps of processing that its weights have been through.
        dtype: Of its weights.
        problem: Why no load can use it; empty where its header is whole.
    """

    key: str
    path: Path
    label: str
    nbytes: int
    created: datetime
    last_used: datetime
    flags: tuple[str, ...] = ()
    dtype: str = ""
    problem: str = ""


def entries() -> list[Entry]:
    """Returns what is in the cache, the last used first; headers are read, numbers are not."""
    found = [entry for path in cache_folder().glob(f"*{ENTRY}") if (entry := _entry(path)) is not None]
    return sorted(found, key=lambda entry: (entry.last_used, entry.key), reverse=True)


def _entry(path: Path) -> Entry | None:
    """Describes one file; None where it has gone meanwhile."""
    try:
        stat, used = path.stat(), _time(last_used(path))
    except OSError:
        return None
    try:
        file = open_entry(path)
    except FileNotFoundError:
        return None
    except (BrokenEntry, OSError) as problem:
        return Entry(path.stem, path, "", stat.st_size, _time(stat.st_mtime), used, problem=str(problem))
    created, steps = datetime.fromisoformat(file.created), tuple(file.place["steps"])
    return Entry(path.stem, path, file.label, stat.st_size, created, used, steps, file.dtype)


def clear(keys: Sequence[str] | None = None) -> int:
    """Removes entries; models that have mapped them are not disturbed.

    Args:
        keys: Of the entries; None removes all, and what dead processes have left.

    Returns:
        The bytes that were freed.

    Raises:
        KeyError: There is no entry of such a key; nothing was removed.
    """
    folder = cache_folder()
    names = [path.stem for path in folder.glob(f"*{ENTRY}")]
    unknown = sorted(set(keys or ()) - set(names))
    if unknown:
        raise KeyError(f"{folder} has no entry {unknown[0]!r}")
    freed = 0
    if keys is None:
        freed = sweep(folder) + sum(remove(path) for path in folder.glob(f"*{LOCK}"))
    for name in names if keys is None else keys:
        freed += sum(remove(folder / f"{name}{ending}") for ending in (ENTRY, CHECKED))
    return freed


def verify(entry: Entry) -> list[str]:
    """Reads every byte of an entry, and returns what is wrong with it: a sentence each, none where it is right."""
    try:
        file = open_entry(entry.path)
        wrong = damaged(file)
    except (BrokenEntry, OSError) as problem:
        return [f"{problem}."]
    if not wrong:
        stamp(entry.path)
    return [f"{name} has other numbers than were written." for name in wrong]


def _time(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, timezone.utc)
    except (OverflowError, ValueError, OSError):
        # File systems have times that a calendar has not.
        return datetime.fromtimestamp(0, timezone.utc)
