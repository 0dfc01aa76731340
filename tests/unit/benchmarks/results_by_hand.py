"""Results as the benchmarks write them, with figures that are easy to reckon with."""

from __future__ import annotations

from typing import Any

GIB = 2**30
MACHINE = {
    "cpu": "A Processor",
    "cores": 2,
    "memory": 24 * GIB,
    "system": "Linux 6.1",
    "virtual": False,
    "huge_pages": "madvise",
    "python": "3.11.7",
    "OMP_NUM_THREADS": None,
}
ABOUT = {"date": "2026-01-31", "machine": MACHINE, "versions": {"torch": "2.13.0"}}


def a_load(title: str, kind: str, seconds: list[float], peak: float, held: float = 1.0, **facts: Any) -> dict[str, Any]:
    return {
        "title": title,
        "kind": kind,
        "seconds": seconds,
        "cpu_seconds": seconds,
        "peak": [int(peak * GIB)] * len(seconds),
        "kept": [int(peak * GIB)] * len(seconds),
        "returned": [0] * len(seconds),
        "facts": {"held": int(held * GIB), "mapped": 0, "largest": GIB // 8, "threads": 2, "versions": {}, **facts},
        "samples": [[0.0, 0], [seconds[0] / 2, int(peak * GIB)], [seconds[0], int(peak * GIB)]],
    }


def loads() -> dict[str, Any]:
    return {
        "read": a_load("limit: read the file once", "limit", [0.4, 0.5, 0.6], 0.0, held=0.0),
        "clone": a_load("limit: {k: v.clone()}", "limit", [1.0, 2.0, 4.0], 1.0),
        "ours": a_load("ours, no processing", "ours", [0.1, 0.1, 0.2], 0.01),
        "ours-default": a_load("ours, default", "ours", [1.0, 2.2, 4.0], 2.0, held=2.0),
        "tl3-default": a_load("theirs, default", "other", [10.0, 20.0, 40.0], 8.0, held=2.0),
        "tl4": {
            "title": "theirs, bridge",
            "kind": "other",
            "failed": "needed more than 22.0 GiB",
            "peak_at_failure": 1,
        },
    }


def growth() -> dict[str, Any]:
    def point(x: int, clone: float) -> dict[str, Any]:
        ways = {"clone": a_load("", "limit", [clone], x / 100), "ours": a_load("", "ours", [0.01 * x], 0.001 * x)}
        return {
            "x": x,
            "bytes": x * GIB // 100,
            "ways": {**ways, "ours-default": a_load("", "ours", [0.1 * x * x], x / 100)},
        }

    points = [point(x, 0.5 + 0.02 * x) for x in (12, 24, 48, 96)]
    return {**ABOUT, "title": "layers of a kind", "axis": "layers", "rounds": 1, "points": points}


def results() -> dict[str, Any]:
    load = {
        **ABOUT,
        "title": "A shape",
        "dtype": "float32",
        "bytes": GIB,
        "parameters": GIB // 4,
        "layers": 12,
        "rounds": 3,
    }
    logits = {
        way: a_load(way, "ours", seconds, 0.1, load=0.1, forward=0.2, predicted=[-1.0, -2.0])
        for way, seconds in {"ours": [0.9, 1.8], "transformers": [1.0, 2.0]}.items()
    }
    setting = {"tokens": 16, "threads": 2, "ways": logits, "difference": 1e-6}
    weighed = {"proportional": int(1.1 * GIB), "private": GIB // 100}
    ways = {"ours": {"title": "ours", "processes": weighed, "workers": {**weighed, "proportional": 2 * GIB}}}
    ways["ours-copy"] = {"title": "ours, copy", "failed": "4 copies do not fit this machine"}
    swept = {
        "title": "ours",
        "singles": [1.0, 1.0],
        "seconds": [2.0, 0.5, 0.5],
        "private": [GIB, GIB + GIB // 100, GIB],
        "peak": [GIB] * 3,
    }
    return {
        "load": {"shape": {**load, "warm": loads(), "cold": loads()}},
        "first_logits": {
            "shape": {**ABOUT, "title": "A shape", "dtype": "float32", "bytes": GIB, "rounds": 2, "settings": [setting]}
        },
        "processes": {
            "shape": {**ABOUT, "title": "A shape", "dtype": "float32", "bytes": GIB, "count": 4, "ways": ways}
        },
        "sweep": {
            "shape": {
                **ABOUT,
                "title": "A shape",
                "bytes": GIB,
                "count": 3,
                "ways": {"ours": swept, "ours-default": swept},
            }
        },
        "growth": {"layers": growth()},
    }
