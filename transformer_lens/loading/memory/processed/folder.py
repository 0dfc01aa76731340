"""Where entries lie, and what dead processes have left there; the only importer of platformdirs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import secrets
import stat
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

FOLDER_VARIABLE = "TRANSFORMER_LENS_CACHE"
WANTED_VARIABLE = "TRANSFORMER_LENS_CACHE_PROCESSED"
ENTRY, CHECKED, LOCK, TEMPORARY = ".safetensors", ".checked", ".lock", ".tmp"
_SAID = {"1": True, "true": True, "yes": True, "on": True, "": False, "0": False, "false": False, "no": False,
         "off": False}  # fmt: skip
# A writer that cannot be asked whether it lives has long been done with a file that it has not touched for a day.
_ABANDONED_SECONDS = 24 * 3600
# Numbers of processes on every system; a name with anything else was not given by this cache.
_PROCESS_NUMBER = re.compile("[1-9][0-9]{0,8}")


def cache_folder() -> Path:
    """Returns the folder of entries: ``processed`` in the user's cache, or in what TRANSFORMER_LENS_CACHE names.

    Raises:
        ValueError: The variable of the environment names the home of nobody.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        try:
            return Path(named).expanduser() / "processed"
        except RuntimeError:
            raise ValueError(f"{FOLDER_VARIABLE}={named!r} names the home of a user that is not known here.") from None
    import platformdirs

    return Path(platformdirs.user_cache_dir("transformer_lens", appauthor=False)) / "processed"


def is_wanted(argument: bool | None) -> bool:
    """Whether the cache is used: as the argument says, else as the environment does.

    Raises:
        ValueError: The variable of the environment says neither yes nor no.
    """
    if argument is not None:
        return argument
    said = os.environ.get(WANTED_VARIABLE, "")
    if said.lower() not in _SAID:
        raise ValueError(f"{WANTED_VARIABLE}={said!r} is neither 1 nor 0.")
    return _SAID[said.lower()]


@lru_cache(maxsize=1)
def boot() -> str:
    """Returns what names this run of the machine; empty where the system does not say."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


@lru_cache(maxsize=1)
def _processes() -> str:
    """Returns what names the set of processes among which a process number means one process."""
    namespace = ""
    with contextlib.suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return hashlib.blake2b(f"{boot()} {platform.node()} {namespace}".encode(), digest_size=4).hexdigest()


def temporary_path(path: Path) -> Path:
    """Returns a name in the folder of `path` that no other writer has, and that says who writes."""
    return path.with_name(f"{path.stem}.{_processes()}-{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY}")


def own_file(path: Path) -> os.stat_result:
    """Returns the state of an ordinary file of this user; a link to one counts as one.

    Nothing else is ever opened: a pipe would be waited for, and what another user has put there is not taken.

    Raises:
        OSError: It is something else, another user's, or not there.
    """
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise OSError(f"{path.name} is no ordinary file")
    if os.name == "posix" and state.st_uid != os.geteuid():
        raise OSError(f"{path.name} belongs to another user")
    return state


def leftovers(folder: Path) -> Iterator[Path]:
    """Yields the temporary files of processes that have ended."""
    for path in folder.glob(f"*{TEMPORARY}"):
        processes, _, rest = path.stem.rpartition(".")[2].partition("-")
        number = rest.partition("-")[0]
        if processes == _processes() and _PROCESS_NUMBER.fullmatch(number):
            if not _is_alive(int(number)):
                yield path
        elif _age(path) > _ABANDONED_SECONDS:
            yield path


def sweep(folder: Path) -> int:
    """Removes the temporary files of processes that have ended, and returns how many bytes that frees."""
    return sum(remove(path) for path in leftovers(folder))


def _age(path: Path) -> float:
    """Returns the seconds since a file was last written to; 0 where it is gone."""
    with contextlib.suppress(OSError):
        return time.time() - path.lstat().st_mtime
    return 0.0


def remove(path: Path) -> int:
    """Removes a file, or a link to one, and returns how many bytes that frees; 0 where it cannot be removed."""
    try:
        nbytes = path.lstat().st_size
        path.unlink()
    except OSError:
        return 0
    return nbytes


def _is_alive(number: int) -> bool:
    if number == os.getpid():
        return True
    if os.name != "posix":
        # Asking would end the process there.
        return True
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
