"""How much main memory can be had: the machine's, or what the process's control groups leave of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

# Where control groups are, with the files that say what a group may use, what it uses, and of what kind that is.
_GROUPS_OF_VERSION_2 = ("sys/fs/cgroup", "memory.max", "memory.current")
_GROUPS_OF_VERSION_1 = ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes")


def available_memory(root: Path = Path("/")) -> int | None:
    """Returns the bytes of main memory that can still be taken: the machine's, or a container's if that is less.

    None where the system does not say (it is not Linux).
    """
    found = [_machine(root), group_room(root)]
    return min((value for value in found if value is not None), default=None)


def group_room(root: Path = Path("/")) -> int | None:
    """Returns the bytes that the process's control group, and every group around it, leave; None without a limit."""
    rooms = [_room(folder, limit, usage) for folder, limit, usage in _groups(root)]
    return min((room for room in rooms if room is not None), default=None)


def group_limit(root: Path = Path("/")) -> int | None:
    """Returns the least of the limits of the process's control groups in bytes; None without a limit."""
    limits = [_number(folder / limit) for folder, limit, _ in _groups(root)]
    return min((limit for limit in limits if limit is not None), default=None)


def _machine(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    return None


def _groups(root: Path) -> Iterator[tuple[Path, str, str]]:
    """Yields the folders of the process's groups, the innermost first; in a container the outermost is its own."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    inside = {2: "", 1: ""}
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            inside[2] = path
        elif "memory" in controllers.split(","):
            inside[1] = path
    for version, (base, limit, usage) in ((2, _GROUPS_OF_VERSION_2), (1, _GROUPS_OF_VERSION_1)):
        parts = [part for part in inside[version].split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            yield root.joinpath(base, *parts[:depth]), limit, usage


def _room(folder: Path, limit: str, usage: str) -> int | None:
    most, used = _number(folder / limit), _number(folder / usage)
    if most is None or used is None:
        return None
    try:
        # Pages of files count as used, and are given back when memory is short.
        fields = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    # Version 1 counts the groups inside a group apart.
    files = sum(int(fields.get(f"total_{kind}", fields.get(kind, 0))) for kind in ("inactive_file", "active_file"))
    return max(0, most - used + files)


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    # Version 1 says "no limit" by a number that no machine has.
    return int(text) if text.isdigit() and int(text) < 1 << 60 else None
