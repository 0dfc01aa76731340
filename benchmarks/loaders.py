"""Who loads: the limits, this project in every mode, and the libraries that it is measured against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.checkpoint import hub_home, snapshot
from benchmarks.environments import PROJECT, environments
from benchmarks.memory import ROOT
from benchmarks.shapes import Shape

LOADS = ROOT / "benchmarks" / "loads.py"
LIMIT, OURS, OTHER = "limit", "ours", "other"
MAP, READ, CLONE, CONVERT = "map", "read", "clone", "convert"
UNPROCESSED, UNPROCESSED_FLOAT32, PROCESSED, COPY = "ours", "ours-float32", "ours-default", "ours-copy"
FIRST_CACHED, SECOND_CACHED = "ours-cached-first", "ours-cached-second"
TL3, TL3_DEFAULT, TL4, TL4_COMPATIBLE = "tl3", "tl3-default", "tl4", "tl4-compatible"

# The arguments of a load's function, for a shape and the folder of its checkpoint.
Arguments = Callable[[Shape, Path], tuple[Any, ...]]


@dataclass(frozen=True)
class Loader:
    """One way to load: a function of ``benchmarks/loads.py``, its arguments, and the environment that runs it.

    Attributes:
        name: How options and results call it.
        title: What a table says.
        kind: ``"limit"``, ``"ours"`` or ``"other"``.
        function: In ``benchmarks/loads.py``.
        arguments: Of that function.
        environment: A section of ``benchmarks/environments.toml``, or the project's own.
        narrow_only: Whether it means something only for a file that is not float32 already.
        after: What is asked of the result, in ``benchmarks/loads.py``.
        empties_cache: Whether the folder of processed weights is emptied before the load.
    """

    name: str
    title: str
    kind: str
    function: str
    arguments: Arguments
    environment: str = PROJECT
    narrow_only: bool = False
    after: str = "describe"
    empties_cache: bool = False

    def fits(self, shape: Shape) -> bool:
        """Tells whether a shape can be loaded this way."""
        if self.narrow_only and shape.dtype == "float32":
            return False
        return bool(shape.hub_name) or self.environment in (PROJECT, "nnsight")

    def variables(self, shape: Shape, folder: Path) -> dict[str, str]:
        """Returns the environment variables of its process: the one checkpoint that names mean, and no network."""
        return {"HF_HOME": str(hub_home(folder)), "HF_HUB_OFFLINE": "1"}

    @property
    def import_root(self) -> Path | None:
        """The folder that its process imports from first: this project's, or none."""
        return ROOT if self.kind == OURS else None


def _place(*more: Any) -> Arguments:
    return lambda shape, folder: (str(folder), *more)


def _named(*more: Any) -> Arguments:
    return lambda shape, folder: (shape.hub_name, *more)


def _with_tokenizer(shape: Shape, folder: Path) -> tuple[Any, ...]:
    return (str(snapshot(folder, shape.hub_name or shape.name)),)


def loaders() -> dict[str, Loader]:
    """Returns every loader by name, limits first."""
    titles = {name: environment.title for name, environment in environments().items()}
    three, four = titles["transformer-lens-3"], titles["transformer-lens-4"]
    auto, float32 = {"dtype": "auto"}, {"dtype": "float32"}
    cached = {**float32, "cache_processed": True}
    first = Loader(
        FIRST_CACHED,
        "ours, default, kept (first load)",
        OURS,
        "ours",
        _place(True, cached),
        after="describe_bytes",
        empties_cache=True,
    )
    rows = [
        Loader(READ, "limit: read the file once", LIMIT, "read_file", _place()),
        Loader(MAP, "limit: map the file", LIMIT, "map_file", _place()),
        Loader(CLONE, "limit: {k: v.clone()}", LIMIT, "clone", _place()),
        Loader(CONVERT, "limit: {k: v.float()}", LIMIT, "convert", _place("float32"), narrow_only=True),
        Loader(UNPROCESSED, "ours, no processing, file's dtype", OURS, "ours", _place(False, auto)),
        Loader(
            UNPROCESSED_FLOAT32, "ours, no processing, float32", OURS, "ours", _place(False, float32), narrow_only=True
        ),
        Loader(COPY, "ours, no processing, copy", OURS, "ours", _place(False, {**auto, "load_mode": "copy"})),
        Loader(PROCESSED, "ours, default (processed, float32)", OURS, "ours", _place(True, float32)),
        first,
        replace(first, name=SECOND_CACHED, title="ours, default, kept (second load)", empties_cache=False),
        Loader("transformers", "transformers, a plain model", OTHER, "transformers", _place("auto")),
        Loader("nnsight", titles["nnsight"], OTHER, "nnsight", _with_tokenizer, "nnsight"),
        Loader(TL3, f"{three}, no processing", OTHER, "transformer_lens_3", _named(False), "transformer-lens-3"),
        Loader(TL3_DEFAULT, f"{three}, default", OTHER, "transformer_lens_3", _named(True), "transformer-lens-3"),
        Loader(TL4, f"{four}, bridge", OTHER, "transformer_lens_4", _named(False), "transformer-lens-4"),
        Loader(
            TL4_COMPATIBLE,
            f"{four}, compatibility mode",
            OTHER,
            "transformer_lens_4",
            _named(True),
            "transformer-lens-4",
        ),
    ]
    return {row.name: row for row in rows}
