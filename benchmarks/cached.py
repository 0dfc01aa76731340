"""Times and weighs a processed load that keeps its weights, and the loads after it that map them.

    python -m benchmarks.cached [--rounds 3] [--json FILE]

Every load runs in a process of its own, every round begins with an empty cache: first a load that does not use the
cache, then one that writes its entry, then one that maps it. Medians are printed. The checkpoint is in the page cache;
so is the entry, which was just written. How memory is counted is said in ``benchmarks/memory.py``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.checkpoint import make_gpt2
from benchmarks.loaders import LOADS
from benchmarks.machine import GIB
from benchmarks.memory import Measurement, can_measure, measure
from benchmarks.page_cache import warm
from benchmarks.results import OUT

ROWS = ("processed, no cache", "first load, entry written", "second load, entry mapped")


def run(folder: Path, cache: Path, wanted: bool) -> Measurement:
    """Measures one load."""
    environment = {"TRANSFORMER_LENS_CACHE": str(cache)}
    return measure(f"{LOADS}:cached", str(folder), wanted, after="describe", environment=environment)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="Times and weighs loads that keep and map processed weights.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=OUT / "cached.json")
    options = parser.parse_args(arguments)
    if not can_measure():
        sys.exit("Private memory is read from /proc/<pid>/status, which this system does not have.")
    console = Console(width=None if sys.stdout.isatty() else 120)
    folder = make_gpt2()
    warm([folder / "model.safetensors"])
    found: dict[str, list[Measurement]] = {label: [] for label in ROWS}
    cache = Path(tempfile.mkdtemp(prefix="cached-", dir=folder.parent))
    try:
        for number in range(options.rounds):
            for label in ROWS:
                console.print(f"round {number + 1} of {options.rounds}: {label}", style="dim")
                found[label].append(run(folder, cache, label != ROWS[0]))
            shutil.rmtree(cache)
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    size = (folder / "model.safetensors").stat().st_size
    first = statistics.median(m.seconds for m in found[ROWS[1]])
    table = Table(title=f"{folder.name}, {size / GIB:.2f} GiB", caption="medians", title_justify="left")
    table.add_column("load")
    for head in ("seconds", "× first", "peak GiB", "kept GiB", "kept, % of the file", "mapped GiB"):
        table.add_column(head, justify="right")
    for label, measured in found.items():
        seconds = statistics.median(m.seconds for m in measured)
        kept = statistics.median(m.kept for m in measured)
        table.add_row(
            label,
            f"{seconds:.3f}",
            f"{seconds / first:.3f}",
            f"{statistics.median(m.peak for m in measured) / GIB:.3f}",
            f"{kept / GIB:.3f}",
            f"{100 * kept / size:.2f}",
            f"{measured[0].facts['mapped'] / GIB:.2f}",
        )
    console.print(table)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    rows = {label: [asdict(m) for m in measured] for label, measured in found.items()}
    options.json.write_text(json.dumps({"bytes": size, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
