"""`make matrix`: runs the cells that are named, or all, and tells what came of them in one table."""

from __future__ import annotations

import argparse
import subprocess
import sys

from demo.smollm2 import bring_gguf
from matrix.cells import ROOT, cells_in_full, read_cells, select
from matrix.table import DOCUMENT, KEPT, document, fullest_results, is_green, keep, read_results, result_file, table


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 where every cell that was asked for is green."""
    parser = argparse.ArgumentParser(prog="make matrix", description=__doc__)
    parser.add_argument("cells", nargs="*", help="names of constraints/matrix.toml; none means all")
    parser.add_argument("--quick", action="store_true", help="only the tests listed there as quick")
    parser.add_argument("--remove", action="store_true", help="remove each environment when its tests are done")
    parser.add_argument("--stored", action="store_true", help="run nothing: tell what the last run of each cell left")
    parser.add_argument(
        "--document",
        action="store_true",
        help="keep the stored results and write the document of all kept (done when all cells run)",
    )
    asked = parser.parse_args(arguments)
    cells = read_cells()
    chosen = [cell.name for cell in select(asked.cells, cells)]
    if not asked.stored:
        _run(chosen, asked.quick, asked.remove)
    # What is stored is told as the document tells it, unless quick runs are asked for.
    results = fullest_results(chosen) if asked.stored and not asked.quick else read_results(chosen, quick=asked.quick)
    print(table(results))
    if asked.document or not (asked.cells or asked.quick or asked.stored):
        kept = keep(fullest_results(cells))
        DOCUMENT.write_text(document(kept, cells_in_full()))
        print(f"wrote {KEPT.name} and {DOCUMENT.name}")
    return 0 if all(is_green(result) for result in results.values()) else 1


def _run(names: list[str], quick: bool, remove: bool) -> None:
    bring_gguf()  # once, for all cells
    options = [f"--{option}" for option, wanted in (("quick", quick), ("remove", remove)) if wanted]
    for name in names:
        result_file(name, quick).unlink(missing_ok=True)
        nox = [sys.executable, "-m", "nox", "-f", str(ROOT / "noxfile.py"), "-s", f"cell({name})"]
        subprocess.run([*nox, "--", *options], cwd=ROOT, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
