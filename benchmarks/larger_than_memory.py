"""Loads a checkpoint that is larger than this machine's memory, and runs a range of its layers.

    python -m benchmarks.larger_than_memory [--gib 40] [--envs FOLDER] [--ceiling-gib 12]

The checkpoint is made sparse, in a temporary folder: it has the size of a large Llama and takes a few MiB of the disk.
It is loaded with ``load_mode="assign"`` in a process of its own, whose private memory is measured, and two layers are
run; then ``load_mode="copy"`` is asked for, and what the plan says to that is printed. Last, TransformerLens 3 is given
the same files under a name that it knows, if its environment is there (``make bench`` makes it): its process is ended
when it has taken the ceiling, before the system has to end something. Everything is written to a JSON file as well.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.checkpoint import CACHE, as_hub_cache
from benchmarks.environments import default_folder, environments
from benchmarks.machine import GIB
from benchmarks.memory import ROOT, TooLargeError, can_measure, measure
from benchmarks.results import OUT, save
from benchmarks.rounds import last_line
from benchmarks.sparse import has_holes, make_sparse_llama

LOADS = ROOT / "benchmarks" / "loads.py"
# What TransformerLens 3 takes for a model of these widths.
NAME = "meta-llama/Meta-Llama-3-8B"


def default_bytes() -> int:
    """Returns a size that this machine's memory does not hold: 40 GB, or 1.5 times what there is if that is more."""
    from transformer_lens.loading.memory.available import available_memory

    return max(40 * 10**9, (available_memory() or 0) * 3 // 2)


def fate_elsewhere(folder: Path, envs: Path, ceiling: int) -> str:
    """Says what becomes of TransformerLens 3 when it loads the checkpoint without processing."""
    environment = environments()["transformer-lens-3"]
    python = environment.python(envs)
    if not python.exists():
        return f"not tried: {environment.title} is not in {envs}"
    variables = {"HF_HOME": str(as_hub_cache(folder, NAME)), "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    try:
        measure(
            f"{LOADS}:transformer_lens_3", NAME, False,
            python=python, import_root=None, environment=variables, ceiling=ceiling,
        )  # fmt: skip
    except TooLargeError as error:
        return (
            f"ended at {error.peak / GIB:.1f} GiB of private memory, {time.perf_counter() - start:.0f} s after its "
            "start and before it had a model: it would have taken what the machine does not have"
        )
    except RuntimeError as error:
        return f"failed: {last_line(str(error))}"
    return "loaded"


def as_table(entry: Mapping[str, Any]) -> Table:
    """Returns the table of an entry of the results."""
    assign = entry["assign"]
    table = Table(
        title=f"{entry['bytes'] / GIB:.1f} GiB where {entry['available'] / GIB:.1f} GiB of memory can be had",
        title_justify="left",
    )
    table.add_column("load")
    table.add_column("what became of it")
    table.add_row(
        "ours, load_mode='assign'",
        f"{assign['seconds']:.2f} s, {assign['peak'] / 2**20:.0f} MiB of private memory at its peak; two layers run in "
        f"{assign['range_seconds']:.2f} s, after which {assign['private_after_range'] / 2**20:.0f} MiB are private",
    )
    table.add_row("ours, load_mode='copy'", f"refused: {entry['copy'].splitlines()[0]}")
    table.add_row(environments()["transformer-lens-3"].title, entry["transformer-lens-3"])
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="Loads what memory cannot hold.")
    parser.add_argument("--gib", type=float, help="size of the checkpoint")
    parser.add_argument("--envs", type=Path, default=default_folder(), help="where `make bench` makes environments")
    parser.add_argument("--ceiling-gib", type=float, help="of TransformerLens 3; half of what can be had if not given")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    if not can_measure():
        sys.exit("Private memory is read from /proc/<pid>/status, which this system does not have.")
    from transformer_lens import HookedTransformer
    from transformer_lens.loading import InsufficientMemoryError
    from transformer_lens.loading.memory.available import available_memory

    CACHE.mkdir(parents=True, exist_ok=True)
    can_be_had = available_memory() or 0
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="sparse-") as partial:
        size = default_bytes() if options.gib is None else int(options.gib * GIB)
        made = make_sparse_llama(Path(partial) / "llama", size)
        if not has_holes(made.folder / "model.safetensors"):
            sys.exit("This file system has no sparse files.")
        print(f"checkpoint: {made.nbytes / GIB:.1f} GiB, {made.n_layers} layers; {can_be_had / GIB:.1f} GiB can be had")
        names = "fold_ln center_writing_weights center_unembed fold_value_biases".split()
        print(HookedTransformer.plan_load(made.folder, dtype="auto", device="cpu", **dict.fromkeys(names, False)))
        found = measure(f"{LOADS}:larger_than_memory", str(made.folder), made.live, after="run_range")
        print(
            f"assign: {found.seconds:.2f} s, private memory {found.peak / 2**20:.0f} MiB at its peak; layers "
            f"{made.live - 1} and {made.live} run in {found.facts['seconds']:.2f} s, after which "
            f"{found.facts['private'] / 2**20:.0f} MiB are private"
        )
        try:
            HookedTransformer.from_pretrained(made.folder, load_mode="copy", dtype="auto", device="cpu")
        except InsufficientMemoryError as error:
            refusal = str(error).replace(str(made.folder), "the checkpoint")
            print(f"copy: refused\n{refusal}")
        else:
            sys.exit("copy: was not refused: there is more memory than the checkpoint has")
        ceiling = can_be_had // 2 if options.ceiling_gib is None else int(options.ceiling_gib * GIB)
        fate = fate_elsewhere(made.folder, options.envs, ceiling)
        print(f"{environments()['transformer-lens-3'].title}: {fate}")
        entry = {
            "bytes": made.nbytes,
            "available": can_be_had,
            "assign": {
                "seconds": found.seconds,
                "peak": found.peak,
                "range_seconds": found.facts["seconds"],
                "private_after_range": found.facts["private"],
            },
            "copy": refusal,
            "transformer-lens-3": fate,
        }
        print(f"written: {save('larger_than_memory', {f'{made.nbytes / GIB:.0f} GiB': entry}, options.out)}")


if __name__ == "__main__":
    main()
