"""What is given away: the wheel and the sdist, their contents, their metadata, and that they install."""

import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="hatchling, which builds the package, is not installed")

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def build(tree: Path, target: Path, kind: str) -> Path:
    """Builds a "wheel" or "sdist" of a tree by its own build backend."""
    run([sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(target)], cwd=tree)
    (made,) = target.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


def run(command: list[str], cwd: Path, **environment: str) -> str:
    child = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert child.returncode == 0, child.stdout + child.stderr
    return child.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build(ROOT, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    return build(ROOT, tmp_path_factory.mktemp("sdist"), "sdist")


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def sources() -> set[str]:
    package = ROOT / "transformer_lens"
    return {str(path.relative_to(ROOT)) for path in package.rglob("*.py")} | {"transformer_lens/py.typed"}


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = names_in(wheel)
    info = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert names - info == sources()
    assert any(name.endswith("/licenses/LICENSE") for name in info)
    assert wheel.name == f"transformer_lens-{PROJECT['version']}-py3-none-any.whl"


def test_the_sdist_holds_what_its_tests_need(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert sources() <= names
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "noxfile.py"} <= names
    assert {"constraints/dev.txt", "constraints/matrix.toml", "tests/conftest.py", "docs/errors.md"} <= names
    folders = {name.split("/")[0] for name in names if "/" in name}
    assert folders == {
        "transformer_lens", "tests", "benchmarks", "demo", "docs", "constraints", "fuzz", "hook_map", "matrix",
        ".github",
    }  # fmt: skip
    assert not [name for name in names if "__pycache__" in name or "/out/" in name]


def test_the_sdist_builds_the_same_wheel(wheel, sdist, tmp_path):
    with tarfile.open(sdist) as archive:
        # "data" is the safe way and the default of newer Pythons; older ones warn without it.
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    again = build(tree, tmp_path / "wheel", "wheel")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as two:
        assert {n: one.read(n) for n in one.namelist()} == {n: two.read(n) for n in two.namelist()}


def test_metadata_says_what_the_project_says(metadata):
    assert metadata["Name"] == "transformer-lens" and metadata["Version"] == PROJECT["version"]
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert metadata["License-Expression"] == PROJECT["license"]
    assert set(metadata.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    required = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert len(required) == len(PROJECT["dependencies"])
    assert metadata.get_payload().startswith("# transformer-lens")


LOAD = """
import pathlib, transformer_lens, torch
from importlib.metadata import version
folder = pathlib.Path(transformer_lens.__file__).parent
assert folder.parent == pathlib.Path({site!r}), folder
assert (folder / "py.typed").is_file() and version("transformer-lens") == transformer_lens.__version__
cfg = transformer_lens.HookedTransformerConfig(
    n_layers=2, d_model=14, n_ctx=11, d_head=8, n_heads=3, d_mlp=20, d_vocab=13, act_fn="gelu", device="cpu", seed=1
)
model = transformer_lens.HookedTransformer(cfg)
logits, cache = model.run_with_cache(torch.arange(5)[None])
assert logits.shape == (1, 5, 13) and cache["pattern", 1].shape == (1, 3, 5, 5)
"""


def test_the_wheel_works_where_it_is_installed(wheel, tmp_path):
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    run([*install, str(wheel)], cwd=tmp_path)
    run([sys.executable, "-W", "error", "-c", LOAD.format(site=str(site))], cwd=tmp_path, PYTHONPATH=str(site))
