"""Map or read: by the platform and the kind of file system."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

IO_MODES = ("auto", "map", "read")
# File systems on which a mapping is read page by page over a network or through another process.
SLOW_TO_MAP = frozenset(
    "nfs nfs4 cifs smb3 smbfs lustre beegfs gpfs ceph glusterfs 9p fuse fuseblk virtiofs afs davfs".split()
)


@dataclass(frozen=True)
class IOChoice:
    """How files are read, and why."""

    mode: str
    reason: str


def choose_io(requested: str, path: Path) -> IOChoice:
    """Decides between mapping and reading.

    Args:
        requested: "auto", "map" or "read".
        path: A file of the checkpoint.

    Raises:
        ValueError: There is no such mode.
    """
    if requested not in IO_MODES:
        raise ValueError(f"io = {requested!r} is not one of {', '.join(IO_MODES)}.")
    if requested != "auto":
        return IOChoice(requested, "asked for")
    return decide(sys.platform, file_system_of(path))


def decide(platform: str, file_system: str | None) -> IOChoice:
    """The rule itself: a platform and a file system's type in, a choice out."""
    if platform.startswith("win"):
        return IOChoice("read", "Windows charges a private mapping in full")
    if file_system is not None and (file_system in SLOW_TO_MAP or file_system.startswith("fuse.")):
        return IOChoice("read", f"a mapping is slow on {file_system}")
    return IOChoice("map", f"a local disk ({file_system})" if file_system else "taken for a local disk")


def file_system_of(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """Returns the type of the file system that a path is on; None where the system does not say."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return None
    real = path.resolve()
    best: tuple[int, str] | None = None
    for line in lines:
        fields = line.split()
        if len(fields) < 3:
            continue
        point = Path(fields[1].replace("\\040", " "))
        if (point == real or point in real.parents) and (best is None or len(point.parts) >= best[0]):
            best = (len(point.parts), fields[2])
    return None if best is None else best[1]
