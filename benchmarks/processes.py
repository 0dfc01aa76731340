"""Weighs one model loaded by several processes at once, and by forked workers.

    python -m benchmarks.processes [--full] [--shapes gpt2 …] [--processes 4]

Each process loads the checkpoint, reads every weight and runs a forward pass. What is added up is the growth of each
process's proportional share (PSS) over its level after imports: a page that four map counts a quarter in each.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import options as common
from benchmarks.checkpoint import files_of, made
from benchmarks.machine import GIB, available_memory
from benchmarks.memory import ROOT, private_memory, proportional_memory
from benchmarks.page_cache import warm
from benchmarks.results import save
from benchmarks.shapes import Shape
from benchmarks.stepped_loads import OURS, OURS_COPY, TRANSFORMERS
from benchmarks.steps import Steps

STEPPED = ROOT / "benchmarks" / "stepped_loads.py"
SHORT, FULL = ("gpt2",), ("gpt2", "gpt2-xl", "llama-3.2-1b", "llama-3.2-3b")
WAYS = {
    OURS: "ours, no processing",
    OURS_COPY: "ours, no processing, copy",
    TRANSFORMERS: "transformers, a plain model",
}


def weigh_processes(folders: Sequence[Path], way: str) -> dict[str, int]:
    """Returns the summed growth of processes that each hold the model of a folder, in bytes."""
    with ExitStack() as stack:
        children = [stack.enter_context(Steps(f"{STEPPED}:hold", str(folder), way)) for folder in folders]
        # The levels are taken when all are there: pages of libraries are shared by all from then on.
        for child in children:
            child.proportional_level = proportional_memory(child.pid)
        for child in children:
            child.next()
        read = [child.next() for child in children]
        return {
            "proportional": sum(child.proportional() for child in children),
            "private": sum(step.private for step in read),
        }


def weigh_workers(folder: Path, way: str, count: int) -> dict[str, int]:
    """Returns the growth of a process that holds a model and of its forked workers together, in bytes."""
    with Steps(f"{STEPPED}:fork", str(folder), way, count) as child:
        child.next()
        found = child.next().value
        assert len(set(found["sums"])) == 1, f"the workers read different weights: {found['sums']}"
        workers = found["workers"]
        return {
            "proportional": child.proportional() + sum(proportional_memory(pid) for pid in workers),
            "private": private_memory(child.pid) - child.level,
        }


def measure_shape(folder: Path, shape: Shape, count: int, say: Any) -> dict[str, Any]:
    """Weighs every way on one checkpoint; a way that would need more than the machine has is left out by name."""
    warm(files_of(folder))
    ways: dict[str, Any] = {}
    for way, title in WAYS.items():
        if way == OURS_COPY and count * shape.nbytes > available_memory() - GIB:
            ways[way] = {"title": title, "failed": f"{count} copies do not fit this machine"}
            continue
        say(f"{shape.title}: {title}")
        ways[way] = {
            "title": title,
            "processes": weigh_processes([folder] * count, way),
            "workers": weigh_workers(folder, way, count),
        }
    return {"title": shape.title, "dtype": shape.dtype, "bytes": shape.nbytes, "count": count, "ways": ways}


def as_table(entry: dict[str, Any]) -> Table:
    """Returns the table of one shape."""
    title = f"{entry['title']} shape, {entry['dtype']}, {entry['bytes'] / GIB:.2f} GiB; {entry['count']} processes"
    table = Table(title=title, caption="growth of all together over their levels after imports; every weight was read")
    table.add_column("load")
    for head in ("PSS GiB", "× one copy", "private GiB", "PSS with forked workers GiB", "× one copy"):
        table.add_column(head, justify="right")
    for way in entry["ways"].values():
        if "failed" in way:
            table.add_row(way["title"], f"– ({way['failed']})")
            continue
        processes, workers = way["processes"], way["workers"]
        table.add_row(
            way["title"],
            f"{processes['proportional'] / GIB:.2f}",
            f"{processes['proportional'] / entry['bytes']:.2f}",
            f"{processes['private'] / GIB:.2f}",
            f"{workers['proportional'] / GIB:.2f}",
            f"{workers['proportional'] / entry['bytes']:.2f}",
        )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = common.parser(__doc__, SHORT, FULL, rounds=(1, 1))
    parser.add_argument("--processes", type=int, default=4)
    options = common.parse(parser, arguments)
    console = common.console()
    for shape in common.shapes_of(options):
        with made(shape, options.data, keep=options.keep) as folder:
            entry = measure_shape(folder, shape, options.processes, lambda line: console.print(line, style="dim"))
        console.print(as_table(entry))
        console.print(f"written: {save('processes', {shape.name: entry}, options.out)}")


if __name__ == "__main__":
    main()
