"""Compares what the plan of a load says with what a child process then measures.

    python -m benchmarks.plan [--out FOLDER] [--only TEXT]

Private memory, as ``benchmarks/memory.py`` counts it: at the end of the load, and at its peak. An error is relative to
what was measured; where the plan says that a load takes less than a tenth of the model (it maps or borrows the rest),
to the bytes of the model: what is left there is Python's own objects. A peak that lasts less than a sample is missed
and none is made up, so a load whose peak was measured below the plan's is measured up to three times and the highest
is taken. The command fails where an error is above 3 % and above 5 MiB, which is what the buffers of matrix products
take on some processors: no plan knows it, and beside models of the sizes that people load it is nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.families import make
from benchmarks.memory import ROOT, can_measure, measure
from benchmarks.results import OUT, save

WITHIN = 0.03
MIB = 2**20
BUFFERS = 5 * MIB


@dataclass(frozen=True)
class Case:
    """A load.

    Attributes:
        shape: Name in ``benchmarks.families.py``.
        processed: Whether it is ``from_pretrained``; else ``from_pretrained_no_processing``.
        arguments: Of that method.
        live: Whether a live transformers model is given in place of the folder.
    """

    shape: str
    processed: bool
    arguments: Mapping[str, Any] = field(default_factory=dict)
    live: bool = False

    @property
    def label(self) -> str:
        """What the table calls it."""
        words = [f"{name}={value}" for name, value in self.arguments.items()]
        return ", ".join([self.shape, "processed" if self.processed else "as it is", *["live"] * self.live, *words])


@dataclass(frozen=True)
class Comparison:
    """Plan and measurement of one load, in bytes of private memory.

    Attributes:
        label: The load.
        model: Bytes of all parameters.
        planned_end: Allocated for good, by the plan.
        measured_end: Measured when the load was done.
        planned_peak: At most, by the plan.
        measured_peak: The highest sample.
    """

    label: str
    model: int
    planned_end: int
    measured_end: int
    planned_peak: int
    measured_peak: int

    @property
    def errors(self) -> tuple[float, float]:
        """Relative errors of the end and of the peak; positive where the plan says too much."""
        return (self._error(self.planned_end, self.measured_end), self._error(self.planned_peak, self.measured_peak))

    @property
    def holds(self) -> bool:
        """Whether both are within 3 %, or within what libraries take for themselves."""
        ends = (self.planned_end - self.measured_end, self.planned_peak - self.measured_peak)
        return all(abs(error) <= WITHIN or abs(off) <= BUFFERS for error, off in zip(self.errors, ends))

    def _error(self, planned: int, measured: int) -> float:
        return (planned - measured) / (measured if planned > self.model // 10 else self.model)


CASES = (
    Case("gpt2", True),
    Case("gpt2", True, {"load_mode": "copy"}),
    Case("gpt2", True, {"dtype": "bfloat16"}),
    Case("gpt2", True, {"io": "read"}),
    Case("gpt2", True, {"refactor_factored_attn_matrices": True}),
    Case("gpt2", True, {"first_n_layers": 2}),
    Case("gpt2", True, {"fold_ln": False}),
    Case("gpt2", True, live=True),
    Case("gpt2", False),
    Case("gpt2", False, {"load_mode": "copy"}),
    Case("gpt2", False, {"dtype": "bfloat16"}),
    Case("gpt2", False, {"io": "read"}),
    Case("gpt2", False, live=True),
    Case("gpt2", False, {"load_mode": "copy"}, live=True),
    Case("gpt2-wide", True, {"refactor_factored_attn_matrices": True}),
    Case("gpt2-wide", True, {"refactor_factored_attn_matrices": True, "dtype": "bfloat16"}),
    Case("neox", True),
    Case("neox", True, {"dtype": "auto"}),
    Case("neox", False, {"dtype": "auto", "io": "read"}),
    Case("llama", True),
    Case("llama", True, {"dtype": "auto"}),
    Case("llama", True, {"io": "read"}),
    Case("llama", False),
    Case("llama", False, {"dtype": "auto"}),
    Case("llama", False, {"dtype": "auto", "load_mode": "copy"}),
    Case("llama-f32", True),
    Case("llama-f32", True, {"load_mode": "copy", "io": "read"}),
    Case("mistral", True, {"dtype": "float16"}),
    Case("mistral", False, {"dtype": "auto", "load_mode": "copy", "first_n_layers": 3}),
    Case("qwen2", True),
    Case("qwen2", False, {"dtype": "auto", "io": "read"}),
    Case("phi3", True),
    Case("phi3", True, {"dtype": "auto", "load_mode": "copy"}),
    Case("phi3", False, {"dtype": "auto", "io": "read"}),
)


def _live(folder: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def compare(case: Case) -> Comparison:
    """Plans a load, then measures it in a process of its own."""
    from transformer_lens import HookedTransformer

    folder = make(case.shape)
    flags: dict[str, bool] = {}
    if not case.processed:
        names = "fold_ln center_writing_weights center_unembed fold_value_biases refactor_factored_attn_matrices"
        flags = dict.fromkeys(names.split(), False)
    given: dict[str, Any] = {"hf_model": _live(str(folder))} if case.live else {"model_name": folder}
    plan = HookedTransformer.plan_load(**given, device="cpu", **flags, **case.arguments)
    cost = plan.taken.main
    args = (str(folder), case.processed, dict(case.arguments), case.live)
    peak = 0
    for _ in range(3):
        found = measure(f"{ROOT / 'benchmarks' / 'loads.py'}:ours", *args)
        peak = max(peak, found.peak)
        comparison = Comparison(
            case.label,
            model=cost.mapped + cost.borrowed + cost.allocated,
            planned_end=cost.allocated,
            measured_end=found.kept,
            planned_peak=cost.peak,
            measured_peak=peak,
        )
        if comparison.errors[1] <= WITHIN:
            break
    return comparison


def comparisons(entry: Mapping[str, Any]) -> list[Comparison]:
    """Returns what an entry of the results holds."""
    return [Comparison(**load) for load in entry["loads"]]


def as_table(found: Sequence[Comparison]) -> Table:
    """Returns the table."""
    table = Table(title="Private memory in MiB, as planned and as measured", title_justify="left")
    table.add_column("load")
    for head in ("model", "end: plan", "measured", "error", "peak: plan", "measured", "error"):
        table.add_column(head, justify="right")
    for one in found:
        sizes = (one.planned_end, one.measured_end, one.planned_peak, one.measured_peak)
        end, measured_end, peak, measured_peak = (f"{size / MIB:.1f}" for size in sizes)
        errors = [f"{error:+.1%}" for error in one.errors]
        row = (one.label, f"{one.model / MIB:.1f}", end, measured_end, errors[0], peak, measured_peak, errors[1])
        table.add_row(*row, style=None if one.holds else "red")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="Compares the plan of loads with what they take.")
    parser.add_argument("--only", default="", help="loads whose label has this text")
    parser.add_argument("--out", type=Path, default=OUT, help="where the results are written")
    options = parser.parse_args(arguments)
    if not can_measure():
        sys.exit("Private memory is read from /proc/<pid>/status, which this system does not have.")
    console = Console(width=None if sys.stdout.isatty() else 150)
    found = []
    for case in CASES:
        if options.only in case.label:
            console.print(case.label, style="dim")
            found.append(compare(case))
    console.print(as_table(found))
    entry = {"loads": [asdict(one) for one in found]}
    held = [one.holds for one in found]
    path = save("plan", {options.only or "all": entry}, options.out)
    console.print(f"{sum(held)} of {len(held)} within {WITHIN:.0%}; written: {path}")
    if not all(held):
        sys.exit(1)


if __name__ == "__main__":
    main()
