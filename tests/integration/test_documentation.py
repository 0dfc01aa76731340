"""What the documents say: the README's code runs, links lead somewhere, every verb of the Makefile is there."""

import ast
import builtins
import re
from pathlib import Path

import pytest

from transformer_lens.loading.loaders import can_assign
from transformer_lens.loading.versions import dtype_argument

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path for path in (ROOT / "docs").rglob("*.md") if not {"_build", "generated"} & set(path.relative_to(ROOT).parts)
)
DOCUMENTS = [*ROOT.glob("*.md"), *PAGES]
FENCE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
RUN = [path for path in PAGES if FENCE.search(path.read_text(encoding="utf-8"))]


def test_the_readme_runs(smollm2, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert smollm2.is_relative_to(ROOT / ".cache")
    run_code(ROOT / "README.md")
    assert "Paris" in capsys.readouterr().out


def run_code(page):
    """Runs a page's code from top to bottom, in one namespace."""
    names: dict = {}
    for code in FENCE.findall(page.read_text(encoding="utf-8")):
        # Pages show how the newest transformers spells it.
        code = re.sub(r"(AutoModelForCausalLM\.from_pretrained\(.*?, )dtype=", rf"\1{dtype_argument()}=", code)
        if not can_assign():  # what is borrowed elsewhere is copied
            code = re.sub(r"(data_ptr\(\)) == ", r"\1 != ", code)
        exec(compile(code, page.name, "exec"), names)


@pytest.mark.parametrize("page", RUN, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_code_of_a_page_runs(page, smollm2, monkeypatch, tmp_path):
    """In a folder of its own, where `.cache` leads to the small model: a page may write what it likes."""
    try:
        (tmp_path / ".cache").symlink_to(ROOT / ".cache", target_is_directory=True)
    except OSError as fact:
        pytest.skip(f"this system makes no links: {fact}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRANSFORMER_LENS_CACHE", str(tmp_path / "kept"))
    run_code(page)


def test_every_page_is_in_the_navigation():
    """A page that no toctree names would stop `make docs`."""
    named = set()
    for page in PAGES:
        for tree in re.findall(r"^```{toctree}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
            for entry in (line.strip() for line in tree.splitlines() if line.strip() and not line.startswith(":")):
                named |= set(page.parent.glob(f"{entry}.md"))
    generated = {ROOT / "docs" / "generated" / "hook_map.md"}
    assert named - generated == set(PAGES) - {ROOT / "docs" / "index.md"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        # What is drawn and written when the pages are built is looked for by `make docs`.
        if not target.startswith("http") and "generated/" not in target:
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_verbs_exist(document):
    makefile = (ROOT / "Makefile").read_text()
    for verb in re.findall(r"`make ([a-z-]+)`", document.read_text()):
        assert re.search(rf"^{verb}:", makefile, re.MULTILINE), verb


def test_files_that_the_guide_names_exist():
    for path in re.findall(
        r"`((?:transformer_lens|tests|docs|benchmarks)/[\w/.]+)`", (ROOT / "CONTRIBUTING.md").read_text()
    ):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_code_is_whole(document):
    """Every name that a page's code reads is one that the page's code has made."""
    known = set(dir(builtins))
    for code in FENCE.findall(document.read_text(encoding="utf-8")):
        nodes = list(ast.walk(ast.parse(code, str(document))))
        known |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        known |= {node.arg for node in nodes if isinstance(node, ast.arg)}
        known |= {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        known |= {name.asname or name.name for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))
                  for name in node.names}  # fmt: skip
        read = {node.id for node in nodes if isinstance(node, ast.Name)}
        assert read <= known, (document.name, read - known)


def test_commands_and_their_flags_exist():
    """Every line that calls the command names commands and flags that it has."""
    from typer.testing import CliRunner

    from transformer_lens.cli.app import app

    lines = [
        line.partition("#")[0].split()[1:]
        for document in DOCUMENTS
        for block in re.findall(r"```\n(.*?)```", document.read_text(), re.DOTALL)
        for line in re.findall(r"^(?:\$ )?(transformer-lens .*)$", block, re.MULTILINE)
    ]
    assert len(lines) >= 10
    for line in lines:
        words = [word for word in line if not word.startswith("-")]
        command = words[:2] if words[0] == "cache" else words[:1]
        shown = CliRunner().invoke(app, [*command, "--help"])
        assert shown.exit_code == 0, line
        missing = [word for word in line if word.startswith("--") and word not in re.split(r"[\s,/]+", shown.output)]
        assert not missing, (line, missing)
