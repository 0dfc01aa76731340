"""Environments that are not `.venv`: the cells of the version matrix, packaging, and clients beside us.

`make matrix` runs the cells and prints their table; `nox -l` lists everything. uv makes the environments where it is
installed, virtualenv and pip where not.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from matrix.cells import commit_here, quick_paths, read_cells  # noqa: E402
from matrix.table import RESULTS, result_file  # noqa: E402

CELLS = read_cells()
# As `make test` runs them.
PARALLEL = ("--numprocesses", "auto", "--maxprocesses", "4", "--dist", "worksteal")
# What a test run needs of this tree beside the package, which is installed.
TREE = (".github", "benchmarks", "constraints", "demo", "docs", "fuzz", "hook_map", "matrix", "tests")

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["packaging", "with-sae-lens", "with-circuit-tracer"]
nox.options.envdir = os.environ.get("NOX_ENVDIR", str(ROOT / ".cache" / "nox"))


def install_ourselves(session: nox.Session) -> None:
    """Installs the wheel of this tree, built anew, and leaves what it depends on as it is pinned."""
    session.install("--force-reinstall", "--no-deps", str(ROOT))


def tree_around_the_package(session: nox.Session) -> Path:
    """Copies what tests read to a folder of the session; the package in it is the one that is installed."""
    tree = Path(session.create_tmp()) / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    for name in TREE:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "out"))
    for file in (*ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "noxfile.py", ROOT / "LICENSE"):
        shutil.copy2(file, tree)
    # Documents name it, and the matrix that this run is part of writes it.
    (tree / "docs" / "compatibility.md").touch()
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(str(session.run("python", "-c", ask, silent=True)).strip())
    (tree / "transformer_lens").symlink_to(site / "transformer_lens", target_is_directory=True)
    # Downloads are shared; what this transformers writes from them is its own.
    cache = tree / ".cache"
    cache.mkdir()
    for name in ("SmolLM2-135M-Instruct-GGUF", "bench"):
        (ROOT / ".cache" / name).mkdir(parents=True, exist_ok=True)
        (cache / name).symlink_to(ROOT / ".cache" / name, target_is_directory=True)
    return tree


@nox.session
@nox.parametrize("name", [nox.param(name, id=name) for name in CELLS])
def cell(session: nox.Session, name: str) -> None:
    """One cell of the version matrix; `-- --quick` runs the quick tests, `-- --remove` removes it afterwards."""
    chosen = CELLS[name]
    version = ".".join(map(str, sys.version_info[:2]))
    if version not in _specifier(chosen.python):
        session.error(f"cell {name} is for Python {chosen.python}, and nox runs under {version}")
    # Tests start many processes, and each would compile all of torch where Python keeps no bytecode of its own.
    session.env["UV_COMPILE_BYTECODE"] = "1"
    session.install("--upgrade", str(ROOT), *chosen.requirements)
    install_ourselves(session)
    tree = tree_around_the_package(session)
    commit = commit_here()
    RESULTS.mkdir(parents=True, exist_ok=True)
    scope = "quick" if "--quick" in session.posargs else "all"
    filters = [argument for text in chosen.filters for argument in ("-W", text)]
    # What those look at is no cell's doing: the package's own build, and the document that is written after a run.
    left_out = ["--ignore=tests/packaging", "--deselect=tests/unit/test_matrix.py::test_the_document_"]
    paths = quick_paths() if scope == "quick" else ["tests", *left_out]
    session.chdir(tree)
    try:
        session.run(
            "python", "-m", "matrix.record", name, str(result_file(name, scope == "quick")), scope, commit or "",
            "-q", "-p", "no:cacheprovider", *PARALLEL, *filters, *paths,
            env={"PYTHONPATH": None, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")},
        )  # fmt: skip
    finally:
        if "--remove" in session.posargs:
            session.chdir(ROOT)
            shutil.rmtree(session.virtualenv.location, ignore_errors=True)


def _specifier(text: str):
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(text)


@nox.session
def packaging(session: nox.Session) -> None:
    """Builds wheel and sdist, looks into both, and installs the wheel into an environment with nothing else in it."""
    session.install("--upgrade", str(ROOT), "hatchling", "pip", "pytest", "hypothesis", "beartype")
    install_ourselves(session)
    session.run("python", "-m", "pip", "check")
    session.chdir(session.create_tmp())
    for extra in ("bitsandbytes", "gguf", "peft"):
        session.run("python", "-c", f"import importlib.util as u; assert u.find_spec({extra!r}) is None, {extra!r}")
    session.run("python", "-W", "error", "-c", "import transformer_lens", env={"PYTHONPATH": None})
    session.chdir(ROOT)
    session.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/packaging")


@nox.session(name="with-sae-lens")
def with_sae_lens(session: nox.Session) -> None:
    """sae-lens beside this package, installed as its README says: in one command."""
    beside(session, "sae-lens", "beside_sae_lens.py")


@nox.session(name="with-circuit-tracer")
def with_circuit_tracer(session: nox.Session) -> None:
    """circuit-tracer beside this package, installed in one command."""
    beside(session, "circuit-tracer", "beside_circuit_tracer.py")


def beside(session: nox.Session, client: str, script: str) -> None:
    """Installs a client and ourselves in one command, checks every bound, and runs what tells that both work."""
    session.install("--upgrade", str(ROOT), client, "pip")
    install_ourselves(session)
    session.run("python", "-m", "pip", "check")
    copied = shutil.copy2(ROOT / "tests" / "packaging" / script, session.create_tmp())
    session.chdir(session.create_tmp())
    session.run("python", copied, env={"PYTHONPATH": None})
