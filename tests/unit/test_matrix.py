"""The version matrix: its data, what it proves of the dependency bounds, and what it tells."""

import json
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from matrix import __main__ as command
from matrix import cells, table
from matrix.record import Recorder

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((cells.ROOT / "pyproject.toml").read_text())["project"]
CELLS = cells.read_cells()
BOUNDS = {
    cells.package_of(text): Requirement(text)
    for text in [
        *PROJECT["dependencies"],
        *(text for extra in ("bitsandbytes", "gguf", "peft") for text in PROJECT["optional-dependencies"][extra]),
    ]
}


def pins_of(cell: cells.Cell) -> dict[str, str]:
    """The exact versions a cell names, by package."""
    parsed = {cells.package_of(text): Requirement(text) for text in cell.requirements}
    return {
        name: str(requirement.specifier).removeprefix("==")
        for name, requirement in parsed.items()
        if str(requirement.specifier).startswith("==")
    }


@pytest.mark.parametrize("name", CELLS)
def test_every_pin_is_within_the_bounds(name):
    for package, version in pins_of(CELLS[name]).items():
        if package in BOUNDS:
            assert BOUNDS[package].specifier.contains(version), f"{package} {version}"


@pytest.mark.parametrize("package", sorted(BOUNDS))
def test_the_lower_bound_is_what_a_cell_ran_with(package):
    lowest = [spec.version for spec in BOUNDS[package].specifier if spec.operator == ">="]
    assert len(lowest) == 1, "one lower bound each"
    exact = SpecifierSet(f"=={lowest[0]}.*")
    ran = {pins_of(cell)[package] for cell in CELLS.values() if package in pins_of(cell)}
    assert any(exact.contains(version) for version in ran), f"{lowest[0]} is promised, {sorted(ran)} were tried"


def test_every_torch_has_its_oldest_and_newest():
    named = {name.removesuffix("-oldest") for name in CELLS if name.startswith("torch-")}
    assert named == {f"torch-{version}" for version in ("2.0.1", "2.1.2", "2.4.1", "2.6.0", "2.13.0")}
    assert all(name in CELLS and f"{name}-oldest" in CELLS for name in named)
    for name in named:
        assert pins_of(CELLS[name])["torch"] == pins_of(CELLS[f"{name}-oldest"])["torch"] == name.removeprefix("torch-")
    assert set(CELLS) - {name for name in CELLS if name.startswith("torch-")} == {"transformers-4.57.3", "newest"}


def test_the_default_cell_is_the_development_environment():
    developed = {}
    for line in (cells.ROOT / "constraints" / "dev.txt").read_text().splitlines():
        requirement = line.partition(";")[0]
        if "==" in requirement and 'python_version < "3.11"' not in line:
            developed[cells.package_of(requirement)] = requirement.partition("==")[2].strip()
    ran = pins_of(CELLS["torch-2.13.0"])
    assert {name: ran[name] for name in set(ran) & set(developed)} == {
        name: developed[name] for name in set(ran) & set(developed)
    }
    assert {"torch", "transformers", "accelerate", "numpy", "jaxtyping"} <= set(ran) & set(developed)


def test_a_cell_overrides_a_tool(tmp_path):
    file = tmp_path / "matrix.toml"
    file.write_text(
        'tools = ["Pandas==3.1.1", "pytest==9.2.0"]\nquick = []\n'
        '[cells.a]\npython = ">=3.10"\npins = ["pandas==2.2.3"]\n'
    )
    assert cells.read_cells(file)["a"].requirements == ("pandas==2.2.3", "pytest==9.2.0")
    file.write_text('tools = []\nquick = []\n[cells.a]\npython = ">=3.10"\npins = []\npin = []\n')
    with pytest.raises(ValueError, match="cell a of matrix.toml has pin, which means nothing"):
        cells.read_cells(file)


def test_cells_are_selected_by_name():
    assert [cell.name for cell in cells.select(["newest", "torch-2.0.1"], CELLS)] == ["newest", "torch-2.0.1"]
    assert len(cells.select([], CELLS)) == len(CELLS)
    with pytest.raises(ValueError, match="no cell torch-1.0; there are torch-2.0.1-oldest, "):
        cells.select(["torch-1.0"], CELLS)


def test_ci_runs_every_cell():
    workflow = (cells.ROOT / ".github" / "workflows" / "checks.yml").read_text().splitlines()
    assert [line.strip() for line in workflow if line.strip().startswith("- torch-")] == [
        f"- {name}" for name in CELLS if name.startswith("torch-")
    ]
    assert {"- transformers-4.57.3", "- newest"} <= {line.strip() for line in workflow}


def test_ci_runs_the_tests_of_a_cell_in_full():
    workflow = (cells.ROOT / ".github" / "workflows" / "checks.yml").read_text()
    assert "- run: python -m matrix ${{ matrix.cell }}\n" in workflow
    assert "--quick" not in workflow


def test_the_newest_releases_are_tested_in_full():
    assert "newest" in cells.cells_in_full()
    assert set(cells.cells_in_full()) <= set(CELLS)
    assert not [
        pin for pin in CELLS["newest"].requirements if cells.package_of(pin) in ("torch", "transformers") and "=" in pin
    ]


def test_the_quick_tests_exist():
    assert all((cells.ROOT / path.partition("::")[0]).exists() for path in cells.quick_paths())


SUITE = """
import pytest
def test_passes(): pass
def test_fails(): assert False
@pytest.fixture
def broken(): raise OSError
def test_error(broken): pass
@pytest.mark.skip(reason="no fish")
def test_skips(): pass
def test_skips_inside(): pytest.skip("no fish")
@pytest.mark.xfail(reason="known")
def test_expected(): assert False
"""


def test_what_is_recorded(tmp_path):
    (tmp_path / "test_it.py").write_text(SUITE)
    recorder = Recorder()
    pytest.main(
        ["-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(tmp_path), str(tmp_path)], [recorder]
    )
    assert recorder.passed == 1
    assert [name.rpartition("::")[2] for name in recorder.failed] == ["test_fails", "test_error"]
    assert recorder.skipped == {"no fish": 2, "expected to fail: known": 1}


def result(**changes):
    return {
        "cell": "a", "scope": "all", "commit": "0123456789ab", "date": "2026-01-02", "system": "Linux", "passed": 7,
        "failed": [],
        "versions": {"python": "3.11.7", "torch": "2.0.1", "numpy": "1.26.4", "einops": "0.8.2"},
        "skipped": {"no fish": 2}, "seconds": 31, "exit_code": 0, **changes,
    }  # fmt: skip


def test_the_table_has_versions_counts_and_reasons(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(result()))
    (tmp_path / "c.json").write_text(json.dumps(result(failed=["tests/x.py::test_y"], exit_code=1)))
    results = table.read_results(["a", "b", "c"], tmp_path)
    assert [table.is_green(found) for found in results.values()] == [True, False, False]
    lines = table.table(results).splitlines()
    assert lines[0].split() == ["cell", *table.SHOWN, "passed", "failed", "skipped", "seconds"]
    assert lines[1].split() == ["a", "3.11.7", "2.0.1", "–", "–", "–", "1.26.4", "7", "0", "2", "31"]
    assert lines[2].split() == ["b", *["–"] * (len(table.SHOWN) + 4)]
    assert lines[4:] == ["c failed: tests/x.py::test_y", "skipped: no fish (2 on a, 2 on c)"]
    written = table.document(results, ["a", "b", "c"])
    assert "| a | 3.11.7 | 2.0.1 | – | – | – | 1.26.4 | 7 | 0 | 2 | 31 | all | 2026-01-02 | 0123456789ab |" in written
    assert "- no fish: 2 on a, 2 on c" in written and "| b | –" in written and "| not run | – | – |" in written
    assert "- a: 7 tests passed at commit 0123456789ab on 2026-01-02" in written
    assert "- b: **not yet**" in written and "- c: **not yet**" in written


def test_the_fullest_result_of_each_cell_goes_into_the_document(tmp_path, monkeypatch, capsys):
    written = tmp_path / "compatibility.md"
    kept = tmp_path / "results.json"
    monkeypatch.setattr(command, "DOCUMENT", written)
    monkeypatch.setattr(table, "KEPT", kept)
    monkeypatch.setattr(command, "read_results", lambda names, quick=False: table.read_results(names, tmp_path, quick))
    monkeypatch.setattr(command, "fullest_results", lambda names: table.fullest_results(names, tmp_path))
    first, second, *rest = CELLS
    table.result_file(first, folder=tmp_path).write_text(json.dumps(result(passed=9)))
    table.result_file(first, quick=True, folder=tmp_path).write_text(json.dumps(result(scope="quick")))
    table.result_file(second, quick=True, folder=tmp_path).write_text(json.dumps(result(scope="quick")))
    assert command.main(["--stored", first]) == 0 and not written.exists()
    assert command.main(["--stored", "--quick", second]) == 0 and not written.exists()
    assert command.main(["--stored", "--document"]) == 1, "not every cell has run"
    rows = rows_of(written.read_text())
    assert (rows[first][7], rows[first][-3], rows[second][-3], rows[rest[0]][-3]) == ("9", "all", "quick", "not run")
    assert table.kept_results(kept)[first]["passed"] == 9


@pytest.mark.parametrize(
    ("new", "old", "stays"),
    [
        (None, {}, "old"),
        ({}, None, "new"),
        ({}, {}, "new"),
        ({"scope": "quick"}, {"scope": "quick"}, "new"),
        ({"scope": "quick", "date": "2026-03-01"}, {"date": "2026-01-01"}, "old"),
        ({"date": "2026-01-01"}, {"scope": "quick", "date": "2026-03-01"}, "new"),
        ({"date": "2026-01-01"}, {"date": "2026-03-01"}, "old"),
    ],
)
def test_which_result_is_kept(new, old, stays, tmp_path):
    """Results are kept with the source: a document written on one machine does not forget what ran on another."""
    kept = tmp_path / "results.json"
    entries = {
        name: None if changes is None else result(cell=name, **changes)
        for name, changes in (("new", new), ("old", old))
    }
    table.keep({"a": entries["old"]}, kept)
    assert table.keep({"a": entries["new"]}, kept)["a"] == entries[stays] == table.kept_results(kept)["a"]


@pytest.mark.parametrize(
    "changes", [{"scope": "quick"}, {"commit": None}, {"commit": "0123456789ab+"}, {"failed": ["x"]}, {"exit_code": 1}]
)
def test_in_full_means_every_test_of_a_commit(changes):
    assert table.ran_in_full(result()) and not table.ran_in_full(result(**changes)) and not table.ran_in_full(None)


def test_the_commit_that_is_recorded_is_marked_where_files_differ(tmp_path):
    assert cells.commit_here(tmp_path) is None
    git("init", folder=tmp_path)
    (tmp_path / "file").write_text("one")
    git("add", "file", folder=tmp_path)
    git("commit", "--message", "one", folder=tmp_path)
    assert cells.commit_here(tmp_path) == git("rev-parse", "HEAD", folder=tmp_path)[:12]
    (tmp_path / "file").write_text("two")
    assert cells.commit_here(tmp_path) == git("rev-parse", "HEAD", folder=tmp_path)[:12] + "+"


@pytest.mark.parametrize("changes", [{"passed": 0}, {"exit_code": 2}, {"failed": ["x"]}])
def test_a_cell_without_tests_is_not_green(changes):
    assert table.is_green(result()) and not table.is_green(result(**changes))


def test_the_document_is_the_matrix():
    """docs/compatibility.md has a row for each cell: of those that ran the versions that it pins, and no failure."""
    text = table.DOCUMENT.read_text()
    assert text == table.document(table.kept_results(), cells.cells_in_full())
    rows = rows_of(text)
    for name, cell in CELLS.items():
        columns = ("cell", *table.SHOWN, "passed", "failed", "skipped", "seconds", "tests", "date", "commit")
        row = dict(zip(columns, rows[name], strict=True))
        if row["tests"] == "not run":
            continue
        assert row["failed"] == "0" and int(row["passed"]) > {"all": 3000, "quick": 1500}[row["tests"]], name
        for package, version in pins_of(cell).items():
            if package in table.SHOWN:
                assert row[package].split("+")[0] == version, (name, package)


@pytest.mark.parametrize("name", [name for name in cells.cells_in_full() if table.kept_results().get(name)])
def test_the_document_names_a_full_run(name):
    """`make matrix CELLS=newest` on the change that is to land, then `python -m matrix --stored --document`."""
    found = table.kept_results()[name]
    if not table.ran_in_full(found):
        # What is not shown is said: the page names the cell, and that it has not run in full.
        assert f"- {name}: {table._fullness(found)}" in table.DOCUMENT.read_text()
        return
    if not (cells.ROOT / ".git").exists() or git("rev-parse", "--is-shallow-repository") == "true":
        pytest.skip("asks the history of the repository")
    known = subprocess.run(["git", "merge-base", "--is-ancestor", found["commit"], "HEAD"], cwd=cells.ROOT)
    assert known.returncode == 0, f"cell {name} ran at {found['commit']}, which is not in the history of this commit"


def git(*words, folder=cells.ROOT):
    name = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    return subprocess.run(["git", *name, *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def rows_of(text: str) -> dict[str, list[str]]:
    """The first table of the document, by cell."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        parts = [part.strip() for part in line.strip("|").split("|")]
        if line.startswith("| ") and parts[0] in CELLS and parts[0] not in found:
            found[parts[0]] = parts
    return found
