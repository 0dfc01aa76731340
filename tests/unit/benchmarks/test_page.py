"""The tables, the verdicts, the page and its pictures, from results written by hand."""

import json
import re
from xml.etree import ElementTree

import pytest

from benchmarks import excerpt, plots
from benchmarks import page as pages
from benchmarks import results as kept
from benchmarks.load import as_table
from benchmarks.promises import verdicts
from benchmarks.tables import as_markdown
from tests.unit.benchmarks.results_by_hand import ABOUT, GIB, growth, results


def test_the_table_of_loads():
    text = as_markdown(as_table(results()["load"]["shape"], "warm"))
    lines = {line.split(" | ")[0].lstrip("| "): line for line in text.splitlines()}
    assert lines["load"] == "| load | seconds | × clone | peak GiB | × result | kept GiB | mapped GiB |"
    assert lines["ours, default"] == "| ours, default | 2.20 (1.00 – 4.00) | 0.50 | 2.00 | 1.00 | 2.00 | 0.00 |"
    assert "needed more than 22.0 GiB" in lines["theirs, bridge"]
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_verdicts_are_reckoned_from_the_results():
    found = {(verdict.subject, verdict.promise): verdict for verdict in verdicts(results())}

    def of(promise, subject="A shape"):
        (match,) = [v for (s, p), v in found.items() if promise in p and s.startswith(subject)]
        return match

    assert of("private growth of the model").measured == pytest.approx(1.0, rel=1e-3)
    assert of("time, of a clone").measured == pytest.approx(0.5) and of("time, of a clone").holds
    assert of("time, of theirs").measured == pytest.approx(0.1)
    assert of("peak, of theirs").measured == pytest.approx(0.25)
    peak = of("largest tensor")
    assert peak.bound == pytest.approx(1.05 * 2 + 1 / 8) and peak.measured == 2.0
    assert not of("one read of the file").holds
    assert of("first logits").measured == pytest.approx(0.9)
    assert of("summed PSS").holds and not of("forked workers").holds
    assert of("unprocessed: a switch", "3 checkpoints").measured == 0.5
    assert of("unprocessed: private memory beyond", "3 checkpoints").measured == pytest.approx(1.0, rel=1e-3)
    # The processed load of the made-up results is quadratic, the other linear.
    linear, quadratic = (
        of("no processing: processor time", "layers of a kind"),
        of("(processed): processor", "layers of a kind"),
    )
    assert linear.measured == pytest.approx(1.0) and linear.holds
    assert quadratic.measured == pytest.approx(2.0) and not quadratic.holds


def test_a_second_cached_load_is_judged():
    from tests.unit.benchmarks.results_by_hand import a_load

    found = results()
    loads = found["load"]["shape"]["warm"]
    loads["ours-cached-first"] = a_load("first", "ours", [3.0, 3.0], 2.0, held=2.0, digest="a")
    loads["ours-cached-second"] = a_load("second", "ours", [0.2, 0.2], 0.01, held=2.0, digest="b")
    judged = {v.promise: v for v in verdicts(found) if v.promise.startswith("kept")}
    assert judged["kept, second load: time, of the first"].holds
    assert judged["kept, second load: private growth of the result"].holds
    assert not judged["kept, second load: parameters that differ from the first's"].holds


def test_the_page_tells_the_machine_and_shows_its_pictures(tmp_path):
    text = pages.page(results(), "benchmarks/results/2026-01-31.json")
    for said in ("2026-01-31", "A Processor", "2 cores", "24 GiB", "torch 2.13.0", "**does not hold**"):
        assert said in text
    drawn = pages.draw(results(), tmp_path / "figures")
    for path in drawn:
        assert f"figures/{path.name}" in text
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    assert text.count("(figures/") == len(drawn) == 4


def test_equal_results_draw_equal_files(tmp_path):
    one, two = (pages.draw({"growth": {"layers": growth()}}, tmp_path / name)[0] for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_a_picture_is_small_and_says_what_it_said():
    """What is drawn from results lies in git only while it is small; text is kept to the letter."""
    svg = """<svg>
      <metadata>1.2345</metadata><!-- a comment -->
      <g id="text_1">
       <text x="1.2345" style="font-size: 9px" transform="rotate(-0 2.9999 10.25)">0.125 of  1.2345</text>
       <path d="M 0 0
L 12.34567 8
" style="fill: none"/>
      </g></svg>"""
    assert plots.compact(svg).splitlines() == [
        "<svg>",
        "<g>",
        '<text x="1.2" style="font-size: 9px" transform="rotate(-0 3 10.25)">0.125 of 1.2345</text>',
        '<path d="M 0 0 L 12.3 8" style="fill: none"/>',
        "</g></svg>",
    ]
    for path in (pages.DOCS / "figures").iterdir():
        assert path.stat().st_size < 64 * 1024, path.name


def test_the_committed_pictures_are_those_of_the_page():
    drawn = {f"figures/{path.name}" for path in (pages.DOCS / "figures").iterdir()}
    assert drawn == set(re.findall(r"\((figures/[^)]+)\)", (pages.DOCS / pages.PAGE).read_text()))


def test_parts_measured_apart_say_so():
    found = results()
    found["sweep"]["shape"]["date"] = "2026-02-01"
    text = pages.page(found, "results.json")
    assert "Measured on 2026-01-31" in text and "Measured on 2026-02-01" in text and "(sweep shape)" in text


def test_results_are_joined_and_keep_what_was_not_measured_anew(tmp_path):
    out, folder = tmp_path / "out", tmp_path / "kept"
    kept.save("sweep", {"one": {"count": 1}, "two": {"count": 2}}, out)
    kept.save("sweep", {"two": {"count": 3}}, out)
    found = json.loads(kept.gather(out, folder).read_text())["sweep"]
    assert (found["one"]["count"], found["two"]["count"]) == (1, 3)
    assert set(ABOUT) < set(found["one"]) and found["one"]["machine"]["cores"] >= 1
    assert kept.newest(folder).parent == folder
    with pytest.raises(FileNotFoundError, match="make bench"):
        kept.gather(tmp_path / "nowhere", tmp_path / "other")


def test_the_committed_page_is_made_of_the_committed_results():
    source = kept.newest()
    written = (pages.DOCS / pages.PAGE).read_text()
    assert written == pages.page(json.loads(source.read_text()), f"benchmarks/results/{source.name}")


def test_packed_loads_are_on_the_page_with_what_failed():
    load = {"seconds": [2.0], "peak": [2**29], "kept": [2**28], "facts": {"packed": 2**30}}
    loads = {"ours, packed": load, "theirs, packed": {"failed": "RuntimeError: no", "peak_at_failure": 0}}
    entry = {**ABOUT, "title": "A small model", "loads": loads, "kl": {"nf4": [0.25, 0.125]}}
    text = pages.page({"quantized": {"small": entry}}, "results.json")
    assert "## Packed models" in text and "A small model, nf4 with nested scales" in text
    assert "| ours, packed | 2.00 | 0.500 | 0.250 | 1.000 | 0.50 |" in text
    assert "RuntimeError: no" in text and "| nf4 | 0.2500 | 0.1250 |" in text


def test_the_readme_shows_the_committed_results():
    written = excerpt.README.read_text()
    assert written == excerpt.with_excerpt(written, json.loads(kept.newest().read_text()))


def test_the_readme_shows_its_shapes_and_leaves_the_rest():
    found = results()
    text = excerpt.with_excerpt(f"before\n{excerpt.BEGIN}\nold\n{excerpt.END}\nafter\n", found)
    assert text.startswith("before\n") and text.endswith(f"{excerpt.END}\nafter\n") and "old" not in text
    assert "A shape's shape" in text and "| ours, default | 2.20" in text
    found["load"]["gpt2-xl"] = {**found["load"]["shape"], "title": "The large one"}
    text = excerpt.excerpt(found)
    assert "The large one" in text and "A shape" not in text


def test_the_plan_is_judged_by_its_largest_error():
    loads = [
        {
            "label": "a",
            "model": 1000,
            "planned_end": 1000,
            "measured_end": 1000,
            "planned_peak": 990,
            "measured_peak": 1000,
        },
        # It maps: errors are of the bytes of the model.
        {"label": "b", "model": 1000, "planned_end": 0, "measured_end": 5, "planned_peak": 20, "measured_peak": 0},
    ]
    results = {"plan": {"all": {**ABOUT, "loads": loads}}}
    (verdict,) = verdicts(results)
    assert verdict.subject == "2 loads" and verdict.measured == pytest.approx(2.0) and verdict.holds
    assert "| a | 0.0 |" in pages.page(results, "results.json")


def test_what_memory_cannot_hold_is_on_the_page():
    assign = {"seconds": 0.5, "peak": 17 << 20, "range_seconds": 2.0, "private_after_range": 30 << 20}
    entry = {
        "bytes": 40 * GIB,
        "available": 20 * GIB,
        "assign": assign,
        "copy": "Too large.\n  more",
        "transformer-lens-3": "ended",
    }
    said = pages.page({"larger_than_memory": {"40 GiB": {**ABOUT, **entry}}}, "results.json")
    assert "40.0 GiB where 20.0 GiB of memory can be had" in said
    assert "0.50 s, 17 MiB of private memory" in said and "| refused: Too large. |" in said and "| ended |" in said
