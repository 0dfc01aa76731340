"""The cells of constraints/matrix.toml."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "constraints" / "matrix.toml"


@dataclass(frozen=True)
class Cell:
    """One environment.

    Attributes:
        name: As `make matrix CELLS=` takes it.
        python: The versions of Python that its pins exist for, as a specifier.
        requirements: What is installed beside the package itself.
        filters: Warnings of its old libraries that are no errors there, in pytest's ``-W`` form.
    """

    name: str
    python: str
    requirements: tuple[str, ...]
    filters: tuple[str, ...]


def package_of(requirement: str) -> str:
    """Returns the name a requirement is for, as package indexes spell it."""
    matched = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert matched, requirement
    return re.sub(r"[-_.]+", "-", matched[0]).lower()


def read_cells(file: Path = FILE) -> dict[str, Cell]:
    """Returns every cell by its name, in the order of the file."""
    table = _table(file)
    return {name: _cell(name, entry, table["tools"]) for name, entry in table["cells"].items()}


def quick_paths(file: Path = FILE) -> list[str]:
    """Returns the tests of a quick run."""
    return list(_table(file)["quick"])


def cells_in_full(file: Path = FILE) -> list[str]:
    """Returns the cells in which every test runs at least once a change."""
    return list(_table(file)["in_full"])


def commit_here(folder: Path = ROOT) -> str | None:
    """Returns the commit that is checked out, with "+" where files differ from it; None outside a repository."""
    if not (folder / ".git").exists():
        return None
    asked = (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain"])
    commit, changed = (
        subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
        for words in asked
    )
    return f"{commit}+" if changed else commit


def select(names: Sequence[str], cells: dict[str, Cell]) -> list[Cell]:
    """Returns the cells that are named; all of them where none is.

    Raises:
        ValueError: There is no such cell.
    """
    unknown = [name for name in names if name not in cells]
    if unknown:
        raise ValueError(f"no cell {', '.join(unknown)}; there are {', '.join(cells)}")
    return [cells[name] for name in names] if names else list(cells.values())


def _cell(name: str, entry: dict[str, Any], tools: list[str]) -> Cell:
    unknown = set(entry) - {"python", "pins", "filters"}
    if unknown:
        raise ValueError(f"cell {name} of {FILE.name} has {', '.join(sorted(unknown))}, which means nothing")
    own = {package_of(pin) for pin in entry["pins"]}
    requirements = (*entry["pins"], *(tool for tool in tools if package_of(tool) not in own))
    return Cell(name, entry["python"], requirements, tuple(entry.get("filters", ())))


def _table(file: Path) -> dict[str, Any]:
    return tomllib.loads(file.read_text())
