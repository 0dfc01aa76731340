"""Times and weighs loading in every way, side by side, and prints tables with ratios to the limits of the same run.

    python -m benchmarks.load [--full] [--shapes gpt2 …] [--only ours clone …] [--cache warm cold] [--envs FOLDER]

Every load runs in a process of its own, in the environment of its library. Rounds are interleaved, so that a slow
minute of the machine meets all of them. ``warm``: the files are in the page cache; ``cold``: they were dropped from
it. How memory is counted is said in ``benchmarks/memory.py``.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import options as common
from benchmarks.checkpoint import files_of, made
from benchmarks.environments import environments
from benchmarks.loaders import LOADS, Loader, loaders
from benchmarks.machine import GIB
from benchmarks.page_cache import COLD, WARM, chill, warm
from benchmarks.results import save
from benchmarks.rounds import Case, run_rounds
from benchmarks.rows import LIMITS, Row, rows_of
from benchmarks.shapes import Shape

SHORT = ("gpt2",)
FULL = ("gpt2", "gpt2-large", "gpt2-xl", "llama-3.2-1b", "llama-3.2-3b", "llama-8b")


def case_of(loader: Loader, shape: Shape, folder: Path, python: Path, kept: Path, state: str) -> Case:
    """Returns how a loader is measured on a checkpoint, its files warm or cold."""

    def before() -> None:
        if loader.empties_cache:
            shutil.rmtree(kept)
            kept.mkdir()
        files = [*files_of(folder), *kept.rglob("*.safetensors")]
        (warm if state == WARM else chill)(files)

    return Case(
        name=loader.name,
        target=f"{LOADS}:{loader.function}",
        args=loader.arguments(shape, folder),
        python=python,
        import_root=loader.import_root,
        environment={**loader.variables(shape, folder), "XDG_CACHE_HOME": str(kept)},
        after=loader.after,
        before=before,
    )


def measure_shape(
    shape: Shape, chosen: Sequence[Loader], states: Sequence[str], options: argparse.Namespace, say: Any
) -> dict[str, Any]:
    """Measures one shape in every chosen way, and returns the entry of the results."""
    known = environments()
    entry: dict[str, Any] = {
        "title": shape.title,
        "dtype": shape.dtype,
        "bytes": shape.nbytes,
        "parameters": shape.parameters,
        "layers": shape.layers,
        "rounds": options.rounds,
    }
    with (
        made(shape, options.data, keep=options.keep) as folder,
        tempfile.TemporaryDirectory(dir=options.data, prefix="kept-") as kept,
    ):
        fitting = [loader for loader in chosen if loader.fits(shape)]
        pythons = {loader.name: known[loader.environment].make(options.envs) for loader in fitting}
        for state in states:
            say(f"{shape.title}, {state}")
            cases = [case_of(loader, shape, folder, pythons[loader.name], Path(kept), state) for loader in fitting]
            found = run_rounds(cases, options.rounds, say)
            entry[state] = {
                loader.name: {"title": loader.title, "kind": loader.kind, **found[loader.name].to_json()}
                for loader in fitting
            }
    return entry


def as_table(entry: dict[str, Any], state: str) -> Table:
    """Returns the table of one shape: medians, spreads, ratios to the limits of the same run."""
    title = (
        f"{entry['title']} shape, {entry['dtype']}, {entry['bytes'] / GIB:.2f} GiB, {state}; {entry['rounds']} rounds"
    )
    table = Table(title=title, caption="medians (lowest – highest); private memory above the level after imports")
    table.add_column("load")
    rows = rows_of(entry[state], state)
    limits = [limit for limit in LIMITS[state] if any(row.ratios.get(limit) for row in rows)]
    heads = [
        "seconds",
        *(f"× {LIMITS[state][limit]}" for limit in limits),
        "peak GiB",
        "× result",
        "kept GiB",
        "mapped GiB",
    ]
    for head in heads:
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(row.title, *cells(row, limits))
    return table


def cells(row: Row, limits: Sequence[str]) -> list[str]:
    """Returns the figures of a row as text."""
    if row.failed:
        return [f"– ({row.failed})"]
    ratios = [f"{row.ratios[limit]:.2f}" if limit in row.ratios else "" for limit in limits]
    of_result = f"{row.peak.median / row.held:.2f}" if row.held else ""
    return [
        f"{row.seconds.median:.2f} ({row.seconds.low:.2f} – {row.seconds.high:.2f})",
        *ratios,
        f"{row.peak.median / GIB:.2f}",
        of_result,
        f"{row.kept.median / GIB:.2f}",
        f"{row.mapped / GIB:.2f}",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    known = loaders()
    parser = common.parser(__doc__, SHORT, FULL)
    common.add_environments(parser)
    parser.add_argument("--only", nargs="+", choices=sorted(known), help="measure these loads alone")
    parser.add_argument("--cache", nargs="+", choices=[WARM, COLD], default=[WARM, COLD], help="default both")
    options = common.parse(parser, arguments)
    console = common.console()
    chosen = [loader for loader in known.values() if not options.only or loader.name in options.only]
    for shape in common.shapes_of(options):
        entry = measure_shape(shape, chosen, options.cache, options, lambda line: console.print(line, style="dim"))
        for state in options.cache:
            console.print(as_table(entry, state))
        console.print(f"written: {save('load', {shape.name: entry}, options.out)}")


if __name__ == "__main__":
    main()
