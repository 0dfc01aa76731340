"""`make matrix`: runs the cells that are named, or all, and tells what came of them in one table."""

from __future__ import annotations

import argparse
import subprocess
import sys

from demo.smollm2 import bring_gguf
from matrix.cells import ROOT, read_cells, select
from matrix.table import DOCUMENT, RESULTS, document, is_green, read_results, table


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 where every cell that was asked for is green."""
    parser = argparse.ArgumentParser(prog="make matrix", description=__doc__)
    parser.add_argument("cells", nargs="*", help="names of constraints/matrix.toml; none means all")
    parser.add_argument("--quick", action="store_true", help="only the tests listed there as quick")
    parser.add_argument("--remove", action="store_true", help="remove each environment when its tests are done")
    asked = parser.parse_args(arguments)
    cells = read_cells()
    chosen = [cell.name for cell in select(asked.cells, cells)]
    bring_gguf()  # once, for all cells
    options = [option for option in ("quick", "remove") if getattr(asked, option)]
    for name in chosen:
        (RESULTS / f"{name}.json").unlink(missing_ok=True)
        nox = [sys.executable, "-m", "nox", "-f", str(ROOT / "noxfile.py"), "-s", f"cell({name})"]
        subprocess.run([*nox, "--", *(f"--{option}" for option in options)], cwd=ROOT, stdin=subprocess.DEVNULL)
    results = read_results(chosen)
    print(table(results))
    stored = {name: result for name, result in read_results(cells).items() if result and result["scope"] == "all"}
    if not asked.quick and len(stored) == len(cells):
        DOCUMENT.write_text(document(stored))
        print(f"wrote {DOCUMENT.relative_to(ROOT)}")
    return 0 if all(is_green(result) for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
