"""Shows how seconds and private memory grow with the number of layers and of parameters, and fits lines.

    python -m benchmarks.growth [--full] [--only layers parameters tiny]

``layers``: GPT-2's own layers, 12 to 80 of them, random numbers. ``parameters``: Llama's shapes, 0.1 to 8 billion,
bfloat16, whose files are holes (zeros that take no disk), because cost does not depend on the numbers; the processed
load keeps the file's dtype here. ``tiny``: up to 1,000 layers of width 32, where what counts is the work per tensor.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from benchmarks.shapes import SHAPES, Shape, gpt2_of
from benchmarks.summary import Spread, fit_line, growth_exponent

CLONE, OURS, PROCESSED = "clone", "ours", "ours-default"
TITLES = {CLONE: "limit: {k: v.clone()}", OURS: "ours, no processing", PROCESSED: "ours, default (processed)"}


@dataclass(frozen=True)
class Series:
    """Shapes that differ in one number.

    Attributes:
        name: By which results are found.
        title: What a plot says.
        axis: What the number counts.
        of: The number of a shape.
        fill: How checkpoints are filled.
        short: Shapes measured by default.
        full: Shapes measured with ``--full``.
    """

    name: str
    title: str
    axis: str
    of: Callable[[Shape], float]
    fill: str
    short: tuple[Shape, ...]
    full: tuple[Shape, ...]


def _llama_of(name: str, width: int, layers: int) -> Shape:
    sizes = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_attention_heads": width // 64,
        "num_key_value_heads": width // 256,
        "num_hidden_layers": layers,
        "vocab_size": 32000,
    }
    return Shape(name, "llama", "bfloat16", sizes, "", name)


def _series() -> list[Series]:
    small = (_llama_of("llama-0.1b", 768, 12), _llama_of("llama-0.4b", 1280, 16), SHAPES["llama-3.2-1b"])
    large = (SHAPES["llama-3.2-3b"], SHAPES["llama-8b"])
    layers = {count: gpt2_of(count) for count in (12, 24, 36, 48, 64, 80)}
    tiny = {count: gpt2_of(count, width=32, vocabulary=64) for count in (125, 250, 500, 1000)}
    return [
        Series(
            "layers",
            "GPT-2's layers, float32",
            "layers",
            lambda shape: shape.layers,
            "random",
            tuple(layers[count] for count in (12, 24, 36)),
            tuple(layers.values()),
        ),
        Series(
            "parameters",
            "Llama's shapes, bfloat16",
            "billion parameters",
            lambda shape: shape.parameters / 1e9,
            "sparse",
            small,
            small + large,
        ),
        Series(
            "tiny",
            "layers of width 32, float32",
            "layers",
            lambda shape: shape.layers,
            "random",
            tuple(tiny.values()),
            tuple(tiny.values()),
        ),
    ]


SERIES = {series.name: series for series in _series()}


def measure_shape(shape: Shape, folder: Path, rounds: int, say: Any) -> dict[str, Any]:
    """Measures the ways to load one shape."""
    ways = {
        CLONE: ("clone", (str(folder),)),
        OURS: ("ours", (str(folder), False, {"dtype": "auto"})),
        PROCESSED: ("ours", (str(folder), True, {"dtype": "auto"})),
    }
    cases = [
        Case(
            way,
            f"{LOADS}:{function}",
            args,
            Path(sys.executable),
            ROOT,
            after="describe",
            before=lambda: warm(files_of(folder)),
        )
        for way, (function, args) in ways.items()
    ]
    found = run_rounds(cases, rounds, say)
    measured = {way: found[way].to_json() for way in ways}
    for way in measured.values():
        way.pop("samples", None)
    return measured


def measure(series: Series, options: Any, say: Any) -> dict[str, Any]:
    """Measures a series, one checkpoint on the disk at a time, and returns the entry of the results."""
    points = []
    for shape in series.full if options.full else series.short:
        say(f"{series.title}: {shape.title or shape.name}")
        with made(shape, options.data, series.fill, keep=options.keep) as folder:
            ways = measure_shape(shape, folder, options.rounds, say)
        points.append({"x": series.of(shape), "bytes": shape.nbytes, "ways": ways})
    return {"title": series.title, "axis": series.axis, "rounds": options.rounds, "points": points}


def line_of(entry: dict[str, Any], way: str) -> dict[str, list[float]]:
    """Returns the points of one way, without failures: medians of seconds and peak, least processor seconds."""
    found = [(point["x"], point["ways"][way]) for point in entry["points"] if "failed" not in point["ways"][way]]
    return {
        "x": [x for x, _ in found],
        "seconds": [Spread.of(way["seconds"]).median for _, way in found],
        "cpu_seconds": [min(way["cpu_seconds"]) for _, way in found],
        "peak": [Spread.of(way["peak"]).median for _, way in found],
    }


def as_table(entry: dict[str, Any]) -> Table:
    """Returns the table of a series: its points, then the lines through them."""
    table = Table(
        title=f"{entry['title']}; {entry['rounds']} rounds",
        caption="medians: seconds · peak GiB; below, the fitted lines",
    )
    table.add_column(entry["axis"], justify="right")
    for way in TITLES:
        table.add_column(TITLES[way], justify="right")
    for point in entry["points"]:
        cells = []
        for way in TITLES:
            found = point["ways"][way]
            if "failed" in found:
                cells.append(found["failed"])
            else:
                cells.append(f"{Spread.of(found['seconds']).median:.3f} · {Spread.of(found['peak']).median / GIB:.3f}")
        table.add_row(f"{point['x']:.4g}", *cells)
    table.add_section()
    for name, key, unit, scale in (("seconds", "seconds", "s", 1), ("memory", "peak", "MiB", 2**20)):
        table.add_row(f"{name} each", *(slope(entry, way, key, unit, scale) for way in TITLES))
    table.add_row("CPU s ~ x^p", *(exponent(entry, way) for way in TITLES))
    return table


def slope(entry: dict[str, Any], way: str, key: str, unit: str, scale: float) -> str:
    """Returns what one more costs, and how well a line says it; nothing where there are too few points for a line."""
    points = line_of(entry, way)
    if len(points["x"]) < 3:
        return ""
    line = fit_line(points["x"], [value / scale for value in points[key]])
    return f"{line.slope:.3g} {unit} (R² {line.r_squared:.3f})"


def exponent(entry: dict[str, Any], way: str) -> str:
    """Returns the power of growth of processor seconds as text; nothing where there are too few points."""
    points = line_of(entry, way)
    return f"p = {growth_exponent(points['x'], points['cpu_seconds']):.2f}" if len(points["x"]) >= 3 else ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = common.parser(__doc__, rounds=(3, 3))
    parser.add_argument("--only", nargs="+", choices=sorted(SERIES), default=list(SERIES))
    options = common.parse(parser, arguments)
    console = common.console()
    for name in options.only:
        entry = measure(SERIES[name], options, lambda line: console.print(line, style="dim"))
        console.print(as_table(entry))
        console.print(f"written: {save('growth', {name: entry}, options.out)}")


if __name__ == "__main__":
    main()
