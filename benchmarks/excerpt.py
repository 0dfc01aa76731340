"""The figures of the README: what `docs/performance.md` says of the models that it is written for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import load
from benchmarks.machine import GIB
from benchmarks.memory import ROOT
from benchmarks.page_cache import WARM
from benchmarks.tables import as_markdown

README = ROOT / "README.md"
BEGIN, END = "<!-- figures: begin. Written by `python -m benchmarks.page`; not by hand. -->", "<!-- figures: end -->"
# The shapes that are shown where they were measured.
SHOWN = ("gpt2-xl", "llama-3.2-3b")


def excerpt(results: Mapping[str, Any]) -> str:
    """Returns the figures as Markdown; the first shape that was measured where none of those to be shown was."""
    loads = {name: entry for name, entry in results["load"].items() if WARM in entry}
    shown = [name for name in SHOWN if name in loads] or list(loads)[:1]
    parts = [BEGIN]
    for name in shown:
        entry = loads[name]
        of = entry["machine"]
        versions = ", ".join(f"{library} {version}" for library, version in entry["versions"].items())
        parts.append(
            f"{entry['title']}'s shape, {entry['dtype']}, {entry['bytes'] / GIB:.2f} GiB, files in the page cache; "
            f"{of['cores']} cores, {of['memory'] / GIB:.0f} GiB, {versions}, {entry['date']}:\n"
        )
        parts.append(f"![Seconds and peak by loader](docs/figures/{name}-{WARM}.svg)\n")
        parts.append(as_markdown(load.as_table(dict(entry), WARM)))
    return "\n".join([*parts, END])


def with_excerpt(text: str, results: Mapping[str, Any]) -> str:
    """Returns a text with the figures between its two marks made anew."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + excerpt(results) + after


def write(source: Path) -> None:
    """Writes the README's figures of a committed file of results."""
    README.write_text(with_excerpt(README.read_text(), json.loads(source.read_text())))
