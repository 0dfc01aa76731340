"""What the project promises of loading, each held against results: a bound, what was measured, whether it holds."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.first_logits import ratio as logits_ratio
from benchmarks.growth import SERIES, TITLES, line_of
from benchmarks.loaders import (
    CLONE,
    CONVERT,
    FIRST_CACHED,
    PROCESSED,
    READ,
    SECOND_CACHED,
    TL3_DEFAULT,
    UNPROCESSED,
    UNPROCESSED_FLOAT32,
)
from benchmarks.machine import GIB
from benchmarks.page_cache import COLD, WARM
from benchmarks.plan import comparisons
from benchmarks.rows import for_as_many_bytes
from benchmarks.stepped_loads import OURS, OURS_PROCESSED
from benchmarks.summary import growth_exponent, paired_ratio
from benchmarks.sweep import grown, switch_over_single

LINEAR = 1.2
"""The largest power of growth that counts as linear: a quadratic part would show as nearly 2."""


@dataclass(frozen=True)
class Verdict:
    """One promise on one subject.

    Attributes:
        subject: The shape, and where it matters the setting.
        promise: What is bounded.
        bound: The largest value that keeps the promise.
        measured: What it is.
        unit: Behind both: ``"×"``, ``"%"``, ``"s"`` or nothing.
        note: What a reader must know to read the figure.
    """

    subject: str
    promise: str
    bound: float
    measured: float
    unit: str = "×"
    note: str = ""

    @property
    def holds(self) -> bool:
        """Tells whether the promise is kept."""
        return self.measured <= self.bound


def verdicts(results: Mapping[str, Any]) -> list[Verdict]:
    """Returns every promise that these results can judge."""
    found = [verdict for entry in results.get("load", {}).values() for verdict in _of_load(entry)]
    found += [verdict for entry in results.get("first_logits", {}).values() for verdict in _of_logits(entry)]
    found += [verdict for entry in results.get("processes", {}).values() for verdict in _of_processes(entry)]
    found += [verdict for entry in results.get("sweep", {}).values() for verdict in _of_sweep(entry)]
    found += [verdict for name, entry in results.get("growth", {}).items() for verdict in _of_growth(name, entry)]
    found += [verdict for entry in results.get("plan", {}).values() for verdict in _of_plan(entry)]
    return found


def _median(load: Mapping[str, Any], key: str) -> float:
    return statistics.median(load[key])


def _of_load(entry: Mapping[str, Any]) -> Iterator[Verdict]:
    subject = f"{entry['title']}, {entry['dtype']}"
    loads = _that_worked(entry.get(WARM, {}))
    if UNPROCESSED in loads:
        load = loads[UNPROCESSED]
        yield Verdict(subject, "unprocessed: private growth of the model", 2.0, 100 * _grown(load, entry["bytes"]), "%")
        yield Verdict(subject, "unprocessed: seconds", 1.0, _median(load, "seconds"), "s")
    if PROCESSED in loads:
        load = loads[PROCESSED]
        held, largest = load["facts"]["held"], load["facts"]["largest"]
        bound = (1.05 * held + largest) / GIB
        yield Verdict(
            subject, "default: peak, of 1.05 × result + largest tensor", bound, _median(load, "peak") / GIB, "GiB"
        )
        yield from _against(subject, "default: time, of a clone of as many bytes", 1.2, load, loads, CLONE)
        if TL3_DEFAULT in loads:
            theirs = loads[TL3_DEFAULT]
            bound = 1 / 7 if entry["dtype"] == "float32" else 1 / 9
            time = paired_ratio(load["seconds"], theirs["seconds"])
            yield Verdict(subject, f"default: time, of {theirs['title']}", bound, time)
            peak = _median(load, "peak") / _median(theirs, "peak")
            yield Verdict(subject, f"default: peak, of {theirs['title']}", 0.55, peak)
    if UNPROCESSED_FLOAT32 in loads:
        load = loads[UNPROCESSED_FLOAT32]
        yield from _against(subject, "unprocessed, float32: time, of {k: v.float()}", 1.1, load, loads, CONVERT)
    if FIRST_CACHED in loads and SECOND_CACHED in loads:
        yield from _of_cached(subject, loads[FIRST_CACHED], loads[SECOND_CACHED])
    cold = _that_worked(entry.get(COLD, {}))
    if PROCESSED in cold and READ in cold and CLONE in cold:
        time = paired_ratio(cold[PROCESSED]["seconds"], cold[READ]["seconds"])
        note = f"a clone of as many bytes took {_clone_over_read(cold):.2f} ×"
        yield Verdict(subject, "default, cold: time, of one read of the file", 1.2, time, note=note)


def _against(
    subject: str, promise: str, bound: float, load: Mapping[str, Any], loads: Mapping[str, Any], limit: str
) -> Iterator[Verdict]:
    if limit in loads:
        seconds = for_as_many_bytes(loads[limit], load["facts"]["held"])
        yield Verdict(subject, promise, bound, paired_ratio(load["seconds"], seconds))


def _clone_over_read(loads: Mapping[str, Any]) -> float:
    seconds = for_as_many_bytes(loads[CLONE], loads[PROCESSED]["facts"]["held"])
    return paired_ratio(seconds, loads[READ]["seconds"])


def _of_cached(subject: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Verdict]:
    held = second["facts"]["held"]
    yield Verdict(subject, "kept, second load: private growth of the result", 2.0, 100 * _grown(second, held), "%")
    time = paired_ratio(second["seconds"], first["seconds"])
    yield Verdict(subject, "kept, second load: time, of the first", 0.1, time)
    differ = float(first["facts"]["digest"] != second["facts"]["digest"])
    yield Verdict(subject, "kept, second load: parameters that differ from the first's", 0.0, differ, "")


def _grown(load: Mapping[str, Any], of: int) -> float:
    return max(_median(load, "kept"), _median(load, "peak")) / of


def _of_logits(entry: Mapping[str, Any]) -> Iterator[Verdict]:
    for setting in entry["settings"]:
        if setting["difference"] is None:
            continue
        subject = f"{entry['title']}, {entry['dtype']}, {setting['tokens']} tokens, {setting['threads']} threads"
        yield Verdict(subject, "unprocessed: time to first logits, of transformers'", 1.1, logits_ratio(setting))


def _of_processes(entry: Mapping[str, Any]) -> Iterator[Verdict]:
    way = entry["ways"][OURS]
    subject = f"{entry['title']}, {entry['dtype']}, {entry['count']} processes"
    for which, promise in (("processes", "summed PSS, of one copy"), ("workers", "the same, forked workers")):
        yield Verdict(subject, f"unprocessed: {promise}", 1.15, way[which]["proportional"] / entry["bytes"])


def _of_sweep(entry: Mapping[str, Any]) -> Iterator[Verdict]:
    subject = f"{entry['count']} checkpoints of {entry['bytes'] / GIB:.2f} GiB"
    for way, title in ((OURS, "unprocessed"), (OURS_PROCESSED, "default")):
        found = entry["ways"][way]
        yield Verdict(subject, f"{title}: a switch, of one load", 1.2, switch_over_single(found))
        flat = 100 * grown(found) / entry["bytes"]
        yield Verdict(subject, f"{title}: private memory beyond the first load's, of a model", 2.0, flat, "%")


def _of_growth(name: str, entry: Mapping[str, Any]) -> Iterator[Verdict]:
    if name not in SERIES or SERIES[name].axis != "layers":
        return
    for way in (OURS, OURS_PROCESSED):
        points = line_of(entry, way)
        if len(points["x"]) >= 3:
            power = growth_exponent(points["x"], points["cpu_seconds"])
            subject = f"{entry['title']}, up to {max(points['x']):,.0f}"
            yield Verdict(subject, f"{TITLES[way]}: processor time grows as layers to the power", LINEAR, power, "")


def _of_plan(entry: Mapping[str, Any]) -> Iterator[Verdict]:
    found = comparisons(entry)
    most = max(abs(error) for one in found for error in one.errors)
    yield Verdict(f"{len(found)} loads", "plan: error of its memory at most, of what is measured", 3.0, 100 * most, "%")


def _that_worked(loads: Mapping[str, Any]) -> dict[str, Any]:
    return {name: load for name, load in loads.items() if "failed" not in load}
