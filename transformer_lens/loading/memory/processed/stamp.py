"""Until when an entry's numbers can be trusted unread.

A process that dies leaves what it has written to the system, which writes it to the disk. So as long as the machine
has not been started anew and nobody has written to the file, the numbers are what they were when it was written or
last read in full. A stamp beside the entry says when that was; without one that fits, the numbers are read.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from transformer_lens.loading.memory.processed.folder import CHECKED, boot, own_file, remove, sweep, temporary_path

# A stamp is a few numbers and a path.
_LONGEST = 1 << 16
# What this process has found right, for folders that take no stamp.
_found_right: set[tuple[object, ...]] = set()


def is_stamped(path: Path) -> bool:
    """Whether an entry was found right since the machine was started, and has not been touched since.

    Raises:
        OSError: It is not there.
    """
    now = _state(path)
    if now in _found_right:
        return True
    try:
        said = path.with_suffix(CHECKED)
        return own_file(said).st_size < _LONGEST and tuple(json.loads(said.read_bytes())) == now
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def stamp(path: Path) -> None:
    """Says that an entry is right as it is; where the folder takes no stamp, for this process only."""
    with contextlib.suppress(OSError):
        now = _state(path)
        _found_right.add(now)
        # An entry without a stamp may be that of a process that was killed while it wrote one.
        sweep(path.parent)
        temporary = temporary_path(path)
        try:
            temporary.write_text(json.dumps(now))
            os.replace(temporary, path.with_suffix(CHECKED))
        finally:
            remove(temporary)


def note_use(path: Path) -> None:
    """Notes that an entry is used now, by the time of its stamp."""
    with contextlib.suppress(OSError):
        os.utime(path.with_suffix(CHECKED))


def last_used(path: Path) -> float:
    """Returns the time of the last use, in seconds since the epoch; that of the entry itself where none is noted."""
    with contextlib.suppress(OSError):
        return path.with_suffix(CHECKED).stat().st_mtime
    return path.stat().st_mtime


def _state(path: Path) -> tuple[object, ...]:
    stat = path.stat()
    return boot(), str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_ctime_ns
