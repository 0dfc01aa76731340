"""The rows of a table of loads, computed from results as they were written; the page and the terminal share them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.loaders import CLONE, CONVERT, READ
from benchmarks.page_cache import COLD, WARM
from benchmarks.summary import Spread, paired_ratio

NOTHING = Spread(0.0, 0.0, 0.0, 0)
# By state of the files: the limits that a load is held against, and what a column's head says.
LIMITS: dict[str, dict[str, str]] = {
    WARM: {CLONE: "clone", CONVERT: "float()"},
    COLD: {READ: "read", CLONE: "clone"},
}


@dataclass(frozen=True)
class Row:
    """What one loader cost on one shape.

    Attributes:
        name: Of the loader.
        title: Of the loader.
        kind: Of the loader.
        seconds: Of the load.
        peak: Bytes of private memory.
        kept: Bytes of private memory, the result alive.
        held: Bytes of the result.
        mapped: Those of them that lie in a file's mapping.
        largest: Bytes of the largest tensor of the result.
        ratios: Seconds over those of each limit for as many bytes, the median over rounds.
        failed: Why there is nothing else; empty if there is.
    """

    name: str
    title: str
    kind: str
    seconds: Spread = NOTHING
    peak: Spread = NOTHING
    kept: Spread = NOTHING
    held: int = 0
    mapped: int = 0
    largest: int = 0
    ratios: Mapping[str, float] = field(default_factory=dict)
    failed: str = ""


def rows_of(loads: Mapping[str, Any], state: str) -> list[Row]:
    """Returns a row a loader, in the order they were measured in."""
    return [_row(name, load, loads, state) for name, load in loads.items()]


def _row(name: str, load: Mapping[str, Any], loads: Mapping[str, Any], state: str) -> Row:
    if "failed" in load:
        return Row(name, load["title"], load["kind"], failed=load["failed"])
    held = load["facts"]["held"]
    ratios = {}
    for limit in LIMITS[state]:
        if name != limit and limit in loads and "failed" not in loads[limit] and held:
            ratios[limit] = paired_ratio(load["seconds"], for_as_many_bytes(loads[limit], held))
    return Row(
        name=name,
        title=load["title"],
        kind=load["kind"],
        seconds=Spread.of(load["seconds"]),
        peak=Spread.of(load["peak"]),
        kept=Spread.of(load["kept"]),
        held=held,
        mapped=load["facts"]["mapped"],
        largest=load["facts"]["largest"],
        ratios=ratios,
    )


def for_as_many_bytes(limit: Mapping[str, Any], held: int) -> list[float]:
    """Returns the seconds of a limit, round by round, had it made so many bytes; reading a file stays what it is."""
    made = limit["facts"]["held"]
    return [seconds * held / made if made else seconds for seconds in limit["seconds"]]
