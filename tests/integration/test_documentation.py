"""What the documents say: the README's code runs, links lead somewhere, every verb of the Makefile is there."""

import re
from pathlib import Path

import pytest

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
