"""Times and weighs loading one checkpoint in every way, and prints a table with ratios to a plain copy.

    python -m benchmarks.load [--rounds 3] [--upstream-python PATH] [--json FILE]

Every load runs in a process of its own. Rounds are interleaved (each goes through all loads once), so that a slow
minute of the machine meets all of them; medians are printed. The checkpoint is in the page cache throughout: it is
read once before the first round. How memory is counted is said in ``benchmarks/memory.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.checkpoint import as_hub_cache, make_gpt2
from benchmarks.memory import ROOT, Measurement, can_measure, measure

LOADS = ROOT / "benchmarks" / "loads.py"
OUT = ROOT / "benchmarks" / "out"
UPSTREAM_PINS = ("transformer-lens==3.9.0", "transformers==5.23.0", "torch==2.13.0")
UPSTREAM = "transformer-lens 3.9.0"
REFERENCE = "limit: {k: v.clone()}"
GIB = 2**30


@dataclass(frozen=True)
class Case:
    """One row of the table: a function of ``benchmarks/loads.py``, its arguments, and the Python that runs it."""

    label: str
    function: str
    args: tuple[object, ...]
    python: Path = Path(sys.executable)
    import_root: Path | None = ROOT
    environment: dict[str, str] = field(default_factory=dict)

    def run(self) -> Measurement:
        """Measures the load once."""
        return measure(
            f"{LOADS}:{self.function}",
            *self.args,
            after="describe",
            python=self.python,
            import_root=self.import_root,
            environment=self.environment,
        )


def cases(folder: Path, upstream_python: Path | None) -> list[Case]:
    """Returns the rows, limits first."""
    place = str(folder)
    rows = [
        Case("limit: map the file", "map_file", (place,)),
        Case(REFERENCE, "clone", (place,)),
        Case("transformers, a plain model", "transformers", (place,)),
        Case("ours, no processing", "ours", (place, False, "auto")),
        Case("ours, no processing, copy", "ours", (place, False, "copy")),
        Case("ours, default (processed)", "ours", (place, True, "auto")),
    ]
    if upstream_python is not None:
        home = {"HF_HOME": str(as_hub_cache(folder)), "HF_HUB_OFFLINE": "1"}
        for label, processed in (("no processing", False), ("default (processed)", True)):
            args = ("gpt2-medium", processed)
            rows.append(Case(f"{UPSTREAM}, {label}", "upstream", args, upstream_python, None, home))
    return rows


def make_upstream_environment(folder: Path = ROOT / ".cache" / "envs" / "transformer-lens-3.9.0") -> Path:
    """Installs transformer-lens 3.9.0 with its pins into an environment of its own, once; returns its Python."""
    python, stamp = folder / "bin" / "python", folder / ".installed"
    if not stamp.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *UPSTREAM_PINS], check=True)
        stamp.write_text("\n".join(UPSTREAM_PINS) + "\n")
    return python


def read_once(path: Path) -> None:
    """Reads a file from front to back, so that it is in the page cache."""
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 24):
            pass


def as_table(rows: Sequence[tuple[str, Sequence[Measurement]]], title: str) -> Table:
    """Returns the table of medians; ratios are to the plain copy."""
    medians = {
        label: (statistics.median(m.seconds for m in found), statistics.median(m.peak for m in found))
        for label, found in rows
    }
    seconds_of_copy, peak_of_copy = medians[REFERENCE]
    table = Table(title=title, caption="medians; private memory above the level after imports", title_justify="left")
    table.add_column("load")
    for head in ("seconds", "× clone", "peak GiB", "× clone", "kept GiB", "mapped GiB"):
        table.add_column(head, justify="right")
    for label, found in rows:
        seconds, peak = medians[label]
        kept = statistics.median(m.kept for m in found)
        table.add_row(
            label,
            f"{seconds:.2f}",
            f"{seconds / seconds_of_copy:.2f}",
            f"{peak / GIB:.2f}",
            f"{peak / peak_of_copy:.2f}",
            f"{kept / GIB:.2f}",
            f"{found[0].facts['mapped'] / GIB:.2f}",
        )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="Times and weighs loading a checkpoint in every way.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--upstream-python", type=Path, help="a Python that has transformer-lens 3.9.0 already")
    parser.add_argument("--without-upstream", action="store_true", help="leave transformer-lens 3.9.0 out")
    parser.add_argument("--json", type=Path, default=OUT / "load.json")
    options = parser.parse_args(arguments)
    if not can_measure():
        sys.exit("Private memory is read from /proc/<pid>/status, which this system does not have.")

    console = Console(width=None if sys.stdout.isatty() else 120)
    folder = make_gpt2()
    upstream_python = None
    if not options.without_upstream:
        upstream_python = options.upstream_python or make_upstream_environment()
    read_once(folder / "model.safetensors")
    rows = cases(folder, upstream_python)
    found: dict[str, list[Measurement]] = {case.label: [] for case in rows}
    for number in range(options.rounds):
        for case in rows:
            console.print(f"round {number + 1} of {options.rounds}: {case.label}", style="dim")
            found[case.label].append(case.run())

    size = (folder / "model.safetensors").stat().st_size
    machine = {
        "cpus": len(os.sched_getaffinity(0)),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        **{name: version(name) for name in ("torch", "transformers", "safetensors", "transformer-lens")},
    }
    title = f"GPT-2 medium shape, float32, {size / GIB:.2f} GiB, in the page cache; {machine['cpus']} CPUs, "
    title += f"torch {machine['torch']}, transformers {machine['transformers']}, {options.rounds} rounds"
    console.print(as_table([(case.label, found[case.label]) for case in rows], title))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "checkpoint_bytes": size,
        "machine": machine,
        "upstream": UPSTREAM_PINS if upstream_python else None,
        "loads": {label: [asdict(m) for m in measured] for label, measured in found.items()},
    }
    options.json.write_text(json.dumps(report, indent=2) + "\n")
    console.print(f"written: {options.json}")


if __name__ == "__main__":
    main()
