"""Small runs of the benchmarks themselves, in child processes; no time is asserted."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import first_logits, growth, load, processes, sweep
from benchmarks.checkpoint import files_of, make
from benchmarks.environments import environments
from benchmarks.memory import ROOT, TooLargeError, can_measure, measure, thinned
from benchmarks.page_cache import cached_fraction, chill, warm
from benchmarks.rounds import Case, last_line, run_rounds
from benchmarks.shapes import SHAPES

pytestmark = pytest.mark.skipif(not can_measure(), reason="this system does not say how much memory is private")
MIB = 2**20


# What runs in the child.


def rises_and_falls(size):
    def call():
        for _ in range(3):
            block = bytearray(size)
            block[:] = b"x" * size
            del block
        return None

    return call


def fails():
    raise ValueError("no such /home/somebody/checkpoint here")


def case(function, *args):
    return Case(function, f"{__file__}:{function}", args, Path(sys.executable), ROOT)


def test_a_child_past_its_ceiling_is_ended():
    with pytest.raises(TooLargeError, match="needed more than 0.1 GiB") as error:
        measure(f"{__file__}:rises_and_falls", 300 * MIB, ceiling=100 * MIB)
    assert error.value.peak > 0 and error.value.ceiling == 100 * MIB


def test_samples_show_the_peak():
    found = measure(f"{__file__}:rises_and_falls", 100 * MIB)
    assert max(size for _, size in found.samples) == found.peak > 90 * MIB
    assert found.cpu_seconds > 0
    assert [seconds for seconds, _ in found.samples] == sorted(seconds for seconds, _ in found.samples)


def test_thinning_loses_no_peak():
    samples = [(float(at), 7 if at == 613 else 1) for at in range(1000)]
    few = thinned(samples, most=50)
    assert len(few) <= 50 and (613.0, 7) in few
    assert thinned(samples[:3]) == tuple(samples[:3])


def test_rounds_keep_what_failed_and_go_on():
    said = []
    found = run_rounds([case("fails"), case("rises_and_falls", MIB)], rounds=2, say=said.append)
    assert found["fails"].to_json() == {"failed": "ValueError: no such … here", "peak_at_failure": 0}
    assert len(found["rises_and_falls"].measurements) == 2
    assert sum("fails" in line for line in said) == 1


def test_a_failure_is_told_without_paths():
    output = "Traceback\n  File '/a/b/c.py'\nKeyError: 'x'\n\nthe above\nOSError: cannot open /some/where/model.bin\n"
    assert last_line(output) == "OSError: cannot open …"
    assert last_line("") == "it ended without a word"


@pytest.mark.skipif(not hasattr(__import__("os"), "posix_fadvise"), reason="this system takes no advice on files")
def test_files_are_warmed(tmp_path):
    files = files_of(make(SHAPES["tiny"], tmp_path / "made"))
    left = chill(files)
    assert 0.0 <= left <= 1.0 and cached_fraction(files) == left
    warm(files)
    assert cached_fraction(files) == 1.0


def test_every_environment_is_pinned():
    for environment in environments().values():
        assert all("==" in pin for pin in environment.pins)
    assert {"project", "transformer-lens-3", "transformer-lens-4", "nnsight"} == set(environments())


@pytest.fixture
def run(tmp_path, capsys):
    def start(command, name, *arguments):
        options = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), *arguments]
        command.main(options)
        assert not list((tmp_path / "data").iterdir()), "checkpoints were left behind"
        return json.loads((tmp_path / "out" / f"{name}.json").read_text())

    return start


def test_loads_and_limits(run):
    only = ["read", "map", "clone", "ours", "ours-copy", "ours-default"]
    entry = run(load, "load", "--shapes", "tiny", "--rounds", "2", "--only", *only)["tiny"]
    for state in ("warm", "cold"):
        assert list(entry[state]) == only
        for name, found in entry[state].items():
            assert "failed" not in found, found
            assert len(found["seconds"]) == len(found["peak"]) == 2 and found["samples"], name
    facts = {name: found["facts"] for name, found in entry["warm"].items()}
    assert facts["clone"]["mapped"] == 0 and facts["map"]["mapped"] == facts["map"]["held"] == entry["bytes"]
    assert facts["ours"]["mapped"] >= 0.9 * facts["ours"]["held"]
    assert facts["ours-copy"]["mapped"] == facts["ours-default"]["mapped"] == 0
    assert {"cpu", "cores", "memory"} <= set(entry["machine"]) and "torch" in entry["versions"]


def test_first_logits_agree(run):
    entry = run(first_logits, "first_logits", "--shapes", "tiny", "--rounds", "1", "--tokens", "5", "--threads", "1")[
        "tiny"
    ]
    (setting,) = entry["settings"]
    assert setting["difference"] < 1e-4
    for way in setting["ways"].values():
        assert way["facts"]["threads"] == 1
        assert way["facts"]["load"] + way["facts"]["forward"] <= way["seconds"][0] * 1.01


def test_processes_share(run):
    ways = run(processes, "processes", "--shapes", "tiny", "--processes", "2")["tiny"]["ways"]
    assert list(ways) == ["ours", "ours-copy", "transformers"]
    for way in ways.values():
        assert way["processes"]["proportional"] > 0 and way["workers"]["proportional"] > 0


def test_a_sweep_leaves_nothing_behind(run, monkeypatch):
    monkeypatch.setattr(sweep, "SHORT_SHAPE", SHAPES["tiny"])
    ways = run(sweep, "sweep", "--checkpoints", "3", "--rounds", "1")["tiny"]["ways"]
    for way in ways.values():
        assert len(way["seconds"]) == len(way["private"]) == 3 and len(way["singles"]) == 1
        assert sweep.grown(way) < 4 * MIB


def test_growth_is_a_line_of_memory(run, monkeypatch):
    from dataclasses import replace

    from benchmarks.shapes import gpt2_of

    shapes = tuple(gpt2_of(layers, width=64, vocabulary=50) for layers in (10, 20, 40))
    monkeypatch.setitem(growth.SERIES, "layers", replace(growth.SERIES["layers"], short=shapes))
    entry = run(growth, "growth", "--only", "layers", "--rounds", "1")["layers"]
    points = growth.line_of(entry, "ours-default")
    assert points["x"] == [10, 20, 40] and points["peak"][0] < points["peak"][1] < points["peak"][2]
    assert "R²" in growth.slope(entry, "ours-default", "peak", "MiB", MIB)
