"""What the documents say: the README's code runs, links lead somewhere, every verb of the Makefile is there."""

import ast
import builtins
import re
from pathlib import Path

import pytest

from transformer_lens.loading.loaders import can_assign
from transformer_lens.loading.versions import dtype_argument

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def test_the_readme_runs(smollm2, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert smollm2.is_relative_to(ROOT / ".cache")
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        # The README shows how the newest transformers spells it.
        code = re.sub(r"(AutoModelForCausalLM\.from_pretrained\(.*?, )dtype=", rf"\1{dtype_argument()}=", code)
        if not can_assign():  # what is borrowed elsewhere is copied
            code = re.sub(r"(data_ptr\(\)) == ", r"\1 != ", code)
        exec(compile(code, "README.md", "exec"), names)
    assert "Paris" in capsys.readouterr().out


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_verbs_exist(document):
    makefile = (ROOT / "Makefile").read_text()
    for verb in re.findall(r"`make ([a-z]+)`", document.read_text()):
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
    for code in re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL):
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
