"""Draws results as SVG: private memory over time, seconds and peak by loader, growth. Equal results, equal files."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.growth import TITLES, line_of
from benchmarks.loaders import LIMIT, OTHER, OURS
from benchmarks.machine import GIB
from benchmarks.rows import rows_of
from benchmarks.summary import fit_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {LIMIT: "#8a8f98", OURS: "#1f6feb", OTHER: "#d1793b"}
GROWTH_COLOURS = ("#8a8f98", "#1f6feb", "#0b3d91")
# Of the lines of each kind, in the order of the loaders: colour and dash.
LINES = {
    LIMIT: (("#8a8f98", ":"), ("#8a8f98", "-."), ("#8a8f98", "--"), ("#8a8f98", "-")),
    OURS: (
        ("#74c0fc", "-"),
        ("#74c0fc", "--"),
        ("#1f6feb", "--"),
        ("#1f6feb", "-"),
        ("#0b3d91", "--"),
        ("#0b3d91", "-"),
    ),
    OTHER: (
        ("#2f9e44", "-"),
        ("#9c36b5", "-"),
        ("#d1793b", "--"),
        ("#d1793b", "-"),
        ("#c92a2a", "--"),
        ("#c92a2a", "-"),
    ),
}
STYLE = {
    "svg.hashsalt": "transformer_lens",
    # Letters as text: as outlines they are nine tenths of a file.
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def draw_memory(entry: Mapping[str, Any], state: str, path: Path) -> Path:
    """Draws each loader's private memory over time, from its typical run."""
    with _figure(path, (8.0, 4.2)) as figure:
        axes = figure.subplots()
        counts: dict[str, int] = {}
        for load in entry[state].values():
            if "failed" in load:
                continue
            number = counts.get(load["kind"], 0)
            counts[load["kind"]] = number + 1
            seconds, sizes = zip(*load["samples"])
            colour, dash = LINES[load["kind"]][number % len(LINES[load["kind"]])]
            axes.plot(seconds, [size / GIB for size in sizes], color=colour, linestyle=dash, label=load["title"])
        axes.set_xlabel("seconds since the load began")
        axes.set_ylabel("private memory, GiB")
        axes.set_title(f"{entry['title']} shape, {entry['dtype']}, {entry['bytes'] / GIB:.2f} GiB, {state}", loc="left")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)
    return path


def draw_loaders(entry: Mapping[str, Any], state: str, path: Path) -> Path:
    """Draws median seconds and peak private memory of each loader, with the lowest and highest."""
    rows = [row for row in rows_of(entry[state], state) if not row.failed]
    with _figure(path, (9.0, 0.8 + 0.3 * len(rows))) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        names, colours = [row.title for row in rows], [COLOURS[row.kind] for row in rows]
        spreads = [
            (left, [row.seconds for row in rows], 1.0, "seconds"),
            (right, [row.peak for row in rows], GIB, "peak private memory, GiB"),
        ]
        for axes, found, scale, title in spreads:
            medians = [spread.median / scale for spread in found]
            low = [(spread.median - spread.low) / scale for spread in found]
            high = [(spread.high - spread.median) / scale for spread in found]
            axes.barh(names, medians, color=colours, xerr=[low, high], error_kw={"linewidth": 0.8})
            for at, value in enumerate(medians):
                end = (value + high[at], at)
                axes.annotate(f"{value:.2f}", end, (3, 0), textcoords="offset points", va="center", fontsize=7)
            axes.set_xlabel(title)
            axes.set_xlim(left=0, right=1.15 * max(max(value + more for value, more in zip(medians, high)), 1e-9))
        left.invert_yaxis()
        figure.suptitle(
            f"{entry['title']} shape, {entry['dtype']}, {entry['bytes'] / GIB:.2f} GiB, {state}",
            x=0.01,
            ha="left",
            fontsize=10,
        )
    return path


def draw_growth(growth: Mapping[str, Any], path: Path) -> Path:
    """Draws seconds and peak private memory against layers or parameters, with the fitted lines; a row a series."""
    with _figure(path, (9.0, 3.0 * len(growth))) as figure:
        grid = figure.subplots(len(growth), 2, squeeze=False)
        for row, entry in zip(grid, growth.values()):
            for axes, key, scale, label in (
                (row[0], "seconds", 1.0, "seconds"),
                (row[1], "peak", GIB, "peak private memory, GiB"),
            ):
                _draw_series(axes, entry, key, scale)
                axes.set_xlabel(entry["axis"])
                axes.set_ylabel(label)
            row[0].set_title(entry["title"], loc="left")
            row[0].legend(fontsize=7)
    return path


def _draw_series(axes: Axes, entry: Mapping[str, Any], key: str, scale: float) -> None:
    for (way, title), colour in zip(TITLES.items(), GROWTH_COLOURS):
        points = line_of(entry, way)
        x, y = points["x"], [value / scale for value in points[key]]
        axes.plot(x, y, "o", markersize=4, color=colour, label=title)
        if len(x) >= 3:
            line = fit_line(x, y)
            ends = [min(x), max(x)]
            axes.plot(ends, [line.at(end) for end in ends], "-", linewidth=1, color=colour)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)


def compact(svg: str) -> str:
    """Returns a picture without what nobody sees: metadata, comments, names of groups, hundredths of a point."""
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"\d+\.\d{3,}", _tenths, tag[0]), svg)  # text between tags stays
    svg = re.sub(r"\s+", " ", svg).replace("> <", ">\n<")
    return re.sub(r' "(?=[ />])', '"', svg).strip() + "\n"


def _tenths(number: re.Match[str]) -> str:
    return f"{float(number[0]):.1f}".removesuffix(".0")


class _figure:
    """A figure that is written as SVG, without the date, when the block ends well."""

    def __init__(self, path: Path, size: tuple[float, float]):
        self.path = path
        self.size = size

    def __enter__(self) -> Figure:
        import matplotlib

        matplotlib.use("Agg", force=False)
        from matplotlib import pyplot

        self._style = matplotlib.rc_context(STYLE)
        self._style.__enter__()
        self.figure = pyplot.figure(figsize=self.size, layout="constrained")
        return self.figure

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        from matplotlib import pyplot

        try:
            if kind is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                written = io.StringIO()
                self.figure.savefig(written, format="svg", metadata={"Date": None})
                self.path.write_text(compact(written.getvalue()))
        finally:
            pyplot.close(self.figure)
            self._style.__exit__(None, None, None)
