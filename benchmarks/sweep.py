"""Loads twenty checkpoints of one size one after another in one process: what a switch costs, and what stays behind.

    python -m benchmarks.sweep [--full] [--checkpoints 20]

A switch is held against one load: the first of a fresh process, the median over as many processes as rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import options as common
from benchmarks.checkpoint import files_of, made
from benchmarks.machine import GIB
from benchmarks.page_cache import warm
from benchmarks.processes import STEPPED
from benchmarks.results import save
from benchmarks.shapes import SHAPES, Shape
from benchmarks.stepped_loads import OURS, OURS_PROCESSED, TRANSFORMERS
from benchmarks.steps import Steps

FIRST_SEED = 100
WAYS = {
    OURS: "ours, no processing",
    OURS_PROCESSED: "ours, default (processed, float32)",
    TRANSFORMERS: "transformers, a plain model",
}
SHORT_SHAPE = SHAPES["gpt2"].resized("gpt2-4-layers", n_layer=4)
FULL_SHAPE = SHAPES["gpt2"]


def measure_sweep(folders: Sequence[Path], way: str, rounds: int) -> dict[str, Any]:
    """Returns seconds and private memory of every switch, and the seconds of single loads in fresh processes."""
    singles = []
    for number in range(rounds):
        with Steps(f"{STEPPED}:switch", [str(folders[number % len(folders)])], way) as child:
            singles.append(child.next().seconds)
    with Steps(f"{STEPPED}:switch", [str(folder) for folder in folders], way) as child:
        steps = [child.next() for _ in folders]
    return {
        "singles": singles,
        "seconds": [step.seconds for step in steps],
        "private": [step.private for step in steps],
        "peak": [step.peak for step in steps],
    }


def grown(found: dict[str, Any]) -> int:
    """Returns by how many bytes the private memory after any later load is above that after the first."""
    return max(found["private"][1:]) - found["private"][0]


def switch_over_single(found: dict[str, Any]) -> float:
    """Returns the median switch over the median single load."""
    return statistics.median(found["seconds"][1:]) / statistics.median(found["singles"])


def measure(shape: Shape, count: int, options: Any, say: Any) -> dict[str, Any]:
    """Makes the checkpoints, measures every way, and returns the entry of the results."""
    with ExitStack() as stack:
        folders = []
        for number in range(count):
            say(f"making checkpoint {number + 1} of {count}")
            context = made(shape, options.data, keep=options.keep, seed=FIRST_SEED + number)
            folders.append(stack.enter_context(context))
        ways = {}
        for way, title in WAYS.items():
            say(title)
            warm(file for folder in folders for file in files_of(folder))
            ways[way] = {"title": title, **measure_sweep(folders, way, options.rounds)}
    return {"title": shape.title or shape.name, "bytes": shape.nbytes, "count": count, "ways": ways}


def as_table(entry: dict[str, Any]) -> Table:
    """Returns the table of a sweep."""
    title = f"{entry['count']} checkpoints of {entry['bytes'] / GIB:.2f} GiB, one after another in one process"
    table = Table(title=title, caption="medians of seconds; private memory above the level after imports")
    table.add_column("load")
    for head in ("one load s", "a switch s", "switch / load", "private after the first GiB", "after the last", "most"):
        table.add_column(head, justify="right")
    for found in entry["ways"].values():
        table.add_row(
            found["title"],
            f"{statistics.median(found['singles']):.3f}",
            f"{statistics.median(found['seconds'][1:]):.3f}",
            f"{switch_over_single(found):.2f}",
            f"{found['private'][0] / GIB:.3f}",
            f"{found['private'][-1] / GIB:.3f}",
            f"{max(found['private']) / GIB:.3f}",
        )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = common.parser(__doc__)
    parser.add_argument("--checkpoints", type=int, default=20)
    options = common.parse(parser, arguments)
    console = common.console()
    shape = FULL_SHAPE if options.full else SHORT_SHAPE
    entry = measure(shape, options.checkpoints, options, lambda line: console.print(line, style="dim"))
    console.print(as_table(entry))
    console.print(f"written: {save('sweep', {shape.name: entry}, options.out)}")


if __name__ == "__main__":
    main()
