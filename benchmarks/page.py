"""Writes ``docs/performance.md`` and its figures from results: no figure in it is written by hand.

    python -m benchmarks.page [--gather] [--results benchmarks/results/2026-01-31.json]

With ``--gather``, what the commands left in ``benchmarks/out/`` is first joined into the file of today under
``benchmarks/results/``, which is committed with the page.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import excerpt, first_logits, growth, larger_than_memory, load, plan, processes, quantized, sweep
from benchmarks.machine import GIB
from benchmarks.memory import ROOT
from benchmarks.page_cache import COLD, WARM
from benchmarks.plots import draw_growth, draw_loaders, draw_memory
from benchmarks.promises import Verdict, verdicts
from benchmarks.results import OUT, gather, newest
from benchmarks.tables import as_markdown

DOCS = ROOT / "docs"
PAGE = "performance.md"
HOW = """\
Each figure is the median of a few runs, with the lowest and the highest beside it. Every run is a fresh process in the
environment of its library; runs are interleaved, round by round, so that a slow minute of the machine meets all
alike, and a ratio is the median of the ratios within each round. What is timed is the load alone: imports come before.

*Private memory* is anonymous memory (`RssAnon`), sampled from outside every few milliseconds, above the level after
imports: what nobody else can use and the kernel cannot give back. *Warm* means that the files are in the page cache,
*cold* that they were dropped from it (a virtual machine's host may still have them). Weights are random numbers in the
shape of the model named. *Limits* are what no loader with these properties beats by much: reading the file once,
mapping it, cloning every tensor, converting every tensor.

`make bench` runs all of it, small; `make bench ARGS=--full` runs every size. `python -m benchmarks.page --gather`
writes this page.
"""
WHAT_FOR = """\
The bounds were set for models of some gigabytes (GPT-2 XL in float32, Llama-3.2-3B in bfloat16); other sizes are held
against the same. What does not hold is shown as well."""


def page(results: Mapping[str, Any], source: str) -> str:
    """Returns the page as markdown.

    Args:
        results: What `benchmarks.results.gather` joined.
        source: The committed file they are in, as the page names it.
    """
    return "\n".join(_parts(results, source)).rstrip() + "\n"


def _parts(results: Mapping[str, Any], source: str) -> Iterator[str]:
    yield "# What loading costs\n"
    yield f"<!-- Written by `python -m benchmarks.page` from {source}; edit neither by hand. -->\n"
    yield f"{_abouts(results, source)}\n\n{HOW}"
    found = verdicts(results)
    if found:
        yield f"## What is promised\n\n{_promises(found)}\n\n{WHAT_FOR}\n"
    for name, entry in results.get("load", {}).items():
        for state in (WARM, COLD):
            if state in entry:
                yield _load(name, entry, state)
    if results.get("first_logits"):
        yield "## Until the first logits\n"
        yield from (as_markdown(first_logits.as_table(entry)) for entry in results["first_logits"].values())
    if results.get("processes"):
        yield "## Several processes, one model\n"
        yield from (as_markdown(processes.as_table(entry)) for entry in results["processes"].values())
    if results.get("sweep"):
        yield "## One model after another\n"
        yield from (as_markdown(sweep.as_table(entry)) for entry in results["sweep"].values())
    if results.get("quantized"):
        yield "## Packed models\n"
        for entry in results["quantized"].values():
            yield as_markdown(quantized.as_table(entry))
            if "kl" in entry:
                yield as_markdown(quantized.as_kl_table(entry))
    if results.get("larger_than_memory"):
        yield "## A checkpoint that memory cannot hold\n"
        yield from (as_markdown(larger_than_memory.as_table(one)) for one in results["larger_than_memory"].values())
    if results.get("plan"):
        yield "## The plan\n"
        yield from (as_markdown(plan.as_table(plan.comparisons(entry))) for entry in results["plan"].values())
    if results.get("growth"):
        yield "## How cost grows\n\n![Seconds and peak private memory against size](figures/growth.svg)\n"
        yield from (as_markdown(growth.as_table(entry)) for entry in results["growth"].values())


def _load(name: str, entry: Mapping[str, Any], state: str) -> str:
    title = f"## {entry['title']} shape, {entry['dtype']}, {entry['bytes'] / GIB:.2f} GiB, {state}\n"
    picture = f"![Seconds and peak by loader](figures/{name}-{state}.svg)\n"
    if state == WARM:
        picture += f"\n![Private memory over time](figures/{name}-{state}-memory.svg)\n"
    return f"{title}\n{picture}\n{as_markdown(load.as_table(dict(entry), state))}"


def _abouts(results: Mapping[str, Any], source: str) -> str:
    """Says when, with what and on what every part was measured; parts of one machine and date share a sentence."""
    said: dict[str, list[str]] = {}
    for command, entries in results.items():
        for name, entry in entries.items():
            said.setdefault(_about(entry), []).append(f"{command} {name}")
    if len(said) == 1:
        return f"{next(iter(said))} The raw figures are in `{source}`."
    lines = [f"* {about} ({', '.join(parts)})" for about, parts in said.items()]
    return "\n".join([*lines, "", f"The raw figures are in `{source}`."])


def _about(entry: Mapping[str, Any]) -> str:
    of = entry["machine"]
    kind = ", a virtual machine" if of["virtual"] else ""
    threads = f", OMP_NUM_THREADS={of['OMP_NUM_THREADS']}" if of["OMP_NUM_THREADS"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in entry["versions"].items())
    return (
        f"Measured on {entry['date']}: {of['cpu']}, {of['cores']} cores, {of['memory'] / GIB:.0f} GiB of memory{kind}, "
        f"{of['system']}, huge pages on `{of['huge_pages']}`{threads}; Python {of['python']}, {versions}."
    )


def _promises(found: Sequence[Verdict]) -> str:
    lines = ["| of | promise | at most | measured | |", "|---|---|--:|--:|---|"]
    for verdict in found:
        unit = f" {verdict.unit}" if verdict.unit else ""
        state = "holds" if verdict.holds else "**does not hold**"
        note = f"; {verdict.note}" if verdict.note else ""
        bound, measured = f"{verdict.bound:.3g}{unit}", f"{verdict.measured:.3g}{unit}"
        lines.append(f"| {verdict.subject} | {verdict.promise} | {bound} | {measured} | {state}{note} |")
    return "\n".join(lines)


def draw(results: Mapping[str, Any], figures: Path) -> list[Path]:
    """Draws every picture of the page."""
    drawn = []
    for name, entry in results.get("load", {}).items():
        for state in (WARM, COLD):
            if state in entry:
                drawn.append(draw_loaders(entry, state, figures / f"{name}-{state}.svg"))
        if WARM in entry:
            drawn.append(draw_memory(entry, WARM, figures / f"{name}-{WARM}-memory.svg"))
    if results.get("growth"):
        drawn.append(draw_growth(results["growth"], figures / "growth.svg"))
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gather", action="store_true", help="join the results of the commands first")
    parser.add_argument("--results", type=Path, help="default: the newest committed file")
    parser.add_argument("--out", type=Path, default=OUT, help="where the commands left their results")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where the page and its figures go")
    options = parser.parse_args(arguments)
    if options.gather:
        gather(options.out)
    source = options.results or newest()
    results = json.loads(source.read_text())
    options.docs.mkdir(parents=True, exist_ok=True)
    (options.docs / PAGE).write_text(page(results, f"benchmarks/results/{source.name}"))
    drawn = draw(results, options.docs / "figures")
    if options.docs == DOCS:
        excerpt.write(source)
    print(f"written: {options.docs / PAGE} and {len(drawn)} figures, from {source}")


if __name__ == "__main__":
    main()
