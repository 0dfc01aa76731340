"""Times an unprocessed load and the forward pass after it, until the first logits: ours and transformers'.

    python -m benchmarks.first_logits [--full] [--shapes gpt2 …] [--tokens 16] [--threads 1 2]

The same weights, tokens and threads; the files are in the page cache; each run in a fresh process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import options as common
from benchmarks.checkpoint import files_of, made
from benchmarks.loaders import LOADS
from benchmarks.machine import GIB
from benchmarks.memory import ROOT
from benchmarks.page_cache import warm
from benchmarks.results import save
from benchmarks.rounds import Case, run_rounds
from benchmarks.shapes import Shape
from benchmarks.summary import Spread, paired_ratio

SHORT, FULL = ("gpt2",), ("gpt2", "gpt2-xl", "llama-3.2-1b", "llama-3.2-3b")
WAYS = {"ours": "ours_to_logits", "transformers": "transformers_to_logits"}
AGREE = {"float32": 1e-3, "bfloat16": 0.1}
"""Largest difference of log-probs between two right implementations, in each dtype, for numbers of this size."""


def measure_shape(
    shape: Shape, folder: Path, tokens: Sequence[int], threads: Sequence[int], rounds: int, say: Any
) -> dict[str, Any]:
    """Measures both on one checkpoint, for every number of tokens and threads."""
    cases = []
    warm(files_of(folder))
    for count in tokens:
        for thread in threads:
            for way, function in WAYS.items():
                cases.append(
                    Case(
                        name=f"{way}, {count} tokens, {thread} threads",
                        target=f"{LOADS}:{function}",
                        args=(str(folder), count, thread),
                        python=Path(sys.executable),
                        import_root=ROOT,
                        environment={"OMP_NUM_THREADS": str(thread)},
                        after="describe_logits",
                    )
                )
    found = run_rounds(cases, rounds, say)
    settings = []
    for count in tokens:
        for thread in threads:
            ways = {way: found[f"{way}, {count} tokens, {thread} threads"].to_json() for way in WAYS}
            settings.append({"tokens": count, "threads": thread, "ways": ways, "difference": _difference(ways)})
    return {"title": shape.title, "dtype": shape.dtype, "bytes": shape.nbytes, "rounds": rounds, "settings": settings}


def _difference(ways: dict[str, Any]) -> float | None:
    if any("failed" in way for way in ways.values()):
        return None
    ours, theirs = (way["facts"]["predicted"] for way in ways.values())
    return max(abs(a - b) for a, b in zip(ours, theirs))


def ratio(setting: dict[str, Any]) -> float:
    """Returns our seconds over transformers', the median of pairs of one round."""
    return paired_ratio(setting["ways"]["ours"]["seconds"], setting["ways"]["transformers"]["seconds"])


def as_table(entry: dict[str, Any]) -> Table:
    """Returns the table of one shape."""
    title = f"{entry['title']} shape, {entry['dtype']}, {entry['bytes'] / GIB:.2f} GiB, warm; {entry['rounds']} rounds"
    table = Table(
        title=title,
        caption="seconds until the first logits: median (lowest – highest); load + forward pass of the typical run",
    )
    for head in (
        "tokens",
        "threads",
        "ours",
        "load + pass",
        "transformers",
        "load + pass",
        "ours / theirs",
        "log-probs differ by",
    ):
        table.add_column(head, justify="right")
    for setting in entry["settings"]:
        cells = [str(setting["tokens"]), str(setting["threads"])]
        failed = [way["failed"] for way in setting["ways"].values() if "failed" in way]
        if failed:
            table.add_row(*cells, f"– ({failed[0]})")
            continue
        for way in setting["ways"].values():
            spread, facts = Spread.of(way["seconds"]), way["facts"]
            cells.append(f"{spread.median:.2f} ({spread.low:.2f} – {spread.high:.2f})")
            cells.append(f"{facts['load']:.2f} + {facts['forward']:.2f}")
        table.add_row(*cells, f"{ratio(setting):.2f}", f"{setting['difference']:.1e}")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    cores = len(os.sched_getaffinity(0))
    parser = common.parser(__doc__, SHORT, FULL, rounds=(3, 7))
    parser.add_argument("--tokens", nargs="+", type=int, help="default 16; with --full 1, 16 and 256")
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, cores}), help="default 1 and every core")
    options = common.parse(parser, arguments)
    tokens = options.tokens or ((1, 16, 256) if options.full else (16,))
    console = common.console()
    for shape in common.shapes_of(options):
        with made(shape, options.data, keep=options.keep) as folder:
            entry = measure_shape(
                shape, folder, tokens, options.threads, options.rounds, lambda line: console.print(line, style="dim")
            )
        console.print(as_table(entry))
        for setting in entry["settings"]:
            difference = setting["difference"]
            if difference is not None and difference > AGREE[shape.dtype]:
                sys.exit(f"The two models predict different things, by {difference}: this measures nothing.")
        console.print(f"written: {save('first_logits', {shape.name: entry}, options.out)}")


if __name__ == "__main__":
    main()
