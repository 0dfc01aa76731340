"""Loads a checkpoint that is larger than this machine's memory, and runs a range of its layers.

    python -m benchmarks.larger_than_memory [--gib 40]

The checkpoint is made sparse, in a temporary folder: it has the size of a large Llama and takes a few MiB of the disk.
It is loaded with ``load_mode="assign"`` in a process of its own, whose private memory is measured, and two layers are
run; then ``load_mode="copy"`` is asked for, and what the plan says to that is printed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.checkpoint import CACHE
from benchmarks.memory import ROOT, can_measure, measure
from benchmarks.sparse import has_holes, make_sparse_llama

GIB = 2**30


def default_bytes() -> int:
    """Returns a size that this machine's memory does not hold: 40 GB, or 1.5 times what there is if that is more."""
    from transformer_lens.loading.memory.available import available_memory

    return max(40 * 10**9, (available_memory() or 0) * 3 // 2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="Loads what memory cannot hold.")
    parser.add_argument("--gib", type=float, help="size of the checkpoint")
    options = parser.parse_args(arguments)
    if not can_measure():
        sys.exit("Private memory is read from /proc/<pid>/status, which this system does not have.")
    from transformer_lens import HookedTransformer
    from transformer_lens.loading import InsufficientMemoryError

    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="sparse-") as partial:
        size = default_bytes() if options.gib is None else int(options.gib * GIB)
        made = make_sparse_llama(Path(partial) / "llama", size)
        if not has_holes(made.folder / "model.safetensors"):
            sys.exit("This file system has no sparse files.")
        print(f"checkpoint: {made.nbytes / GIB:.1f} GiB, {made.n_layers} layers")
        names = "fold_ln center_writing_weights center_unembed fold_value_biases".split()
        print(HookedTransformer.plan_load(made.folder, dtype="auto", device="cpu", **dict.fromkeys(names, False)))
        target = f"{ROOT / 'benchmarks' / 'loads.py'}:larger_than_memory"
        found = measure(target, str(made.folder), made.live, after="run_range")
        print(
            f"assign: {found.seconds:.2f} s, private memory {found.peak / 2**20:.0f} MiB at its peak; layers "
            f"{made.live - 1} and {made.live} run in {found.facts['seconds']:.2f} s, after which "
            f"{found.facts['private'] / 2**20:.0f} MiB are private"
        )
        try:
            HookedTransformer.from_pretrained(made.folder, load_mode="copy", dtype="auto", device="cpu")
        except InsufficientMemoryError as error:
            print(f"copy: refused\n{error}")
        else:
            sys.exit("copy: was not refused: there is more memory than the checkpoint has")


if __name__ == "__main__":
    main()
