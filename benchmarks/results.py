"""Where results are kept: a file a command under ``benchmarks/out/``, gathered into one committed file a date."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine import machine, versions
from benchmarks.memory import ROOT

OUT = ROOT / "benchmarks" / "out"
KEPT = ROOT / "benchmarks" / "results"
COMMANDS = ("load", "first_logits", "processes", "sweep", "growth", "quantized", "plan", "larger_than_memory")


def save(command: str, entries: Mapping[str, Any], out: Path = OUT) -> Path:
    """Writes what a command found; entries of earlier runs that it did not measure anew stay.

    Args:
        command: Its name in `COMMANDS`.
        entries: Results by name; each gets its date, machine and versions.
        out: The folder.

    Returns:
        The file.
    """
    path = out / f"{command}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    about = {"date": datetime.date.today().isoformat(), "machine": machine(), "versions": versions()}
    known.update({name: {**about, **entry} for name, entry in entries.items()})
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known, indent=1, allow_nan=False) + "\n")
    return path


def gather(out: Path = OUT, kept: Path = KEPT) -> Path:
    """Joins what every command found into the file of today, over what it has already; returns it."""
    kept.mkdir(parents=True, exist_ok=True)
    path = kept / f"{datetime.date.today().isoformat()}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    for command in COMMANDS:
        source = out / f"{command}.json"
        if source.exists():
            known[command] = {**known.get(command, {}), **json.loads(source.read_text())}
    if not known:
        raise FileNotFoundError(f"{out} has no results: run `make bench` first")
    path.write_text(json.dumps(known, separators=(",", ":"), allow_nan=False) + "\n")
    return path


def newest(kept: Path = KEPT) -> Path:
    """Returns the newest committed file of results."""
    found = sorted(kept.glob("????-??-??.json"))
    if not found:
        raise FileNotFoundError(f"{kept} has no results: run `make bench`, then `python -m benchmarks.page --gather`")
    return found[-1]
