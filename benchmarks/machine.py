"""What a reader must know of the machine and the versions that figures came from; nothing that names a place."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
GIB = 2**30


def machine() -> dict[str, Any]:
    """Returns the processor, cores, memory, kernel and threads."""
    return {
        "cpu": _of_file("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": total_memory(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "virtual": "hypervisor" in (_of_file("/proc/cpuinfo", "flags") or "").split(),
        "huge_pages": _chosen(HUGE_PAGES.read_text()) if HUGE_PAGES.exists() else "",
        "python": platform.python_version(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }


def total_memory() -> int:
    """Returns the bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_memory() -> int:
    """Returns the bytes that processes can still have without swapping."""
    return int((_of_file("/proc/meminfo", "MemAvailable") or "0 kB").split()[0]) * 1024


def versions(names: Iterable[str] = ("torch", "transformers", "safetensors", "transformer-lens")) -> dict[str, str]:
    """Returns the versions of what is installed of `names`."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _of_file(path: str, name: str) -> str | None:
    if Path(path).exists():
        for line in Path(path).read_text().splitlines():
            key, colon, value = line.partition(":")
            if colon and key.strip() == name:
                return value.strip()
    return None


def _chosen(text: str) -> str:
    return text.partition("[")[2].partition("]")[0]
