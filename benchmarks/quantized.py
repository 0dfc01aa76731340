"""Weighs packed loads of SmolLM2-135M-Instruct, and asks what folding before packing does to its log-probs.

    python -m benchmarks.quantized [--rounds 3] [--json FILE]

Every load runs in a process of its own; medians are printed. The packed folder is made by transformers first.
Then, on a text, the mean divergence KL(float || packed) per token in nats: packed as the file has it, and packed after
folding (norms, centring, value biases), for each kind of packing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.loaders import LOADS
from benchmarks.machine import GIB
from benchmarks.memory import Measurement, can_measure, measure
from benchmarks.page_cache import warm
from benchmarks.results import OUT

KINDS: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "nf4, nested": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    "int8": {"load_in_8bit": True},
}
TEXT = (
    "The river rises in the hills above the town, and for most of the year it is shallow enough to walk across. In "
    "spring, when the snow melts, it carries trees and fences with it. The people who live beside it have learned to "
    "build their houses on stones. A bridge was begun in 1821 and finished thirty years later, after two floods had "
    "taken its first and its second arch. Today a train crosses it every hour, and children count the wagons."
)


def pack(source: Path, target: Path) -> Path:
    """Lets transformers pack the model and save it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    if not (target / "config.json").exists():
        settings = BitsAndBytesConfig(**KINDS["nf4, nested"])
        AutoModelForCausalLM.from_pretrained(source, quantization_config=settings).save_pretrained(target)
        AutoTokenizer.from_pretrained(source).save_pretrained(target)
    return target


def divergences(folder: Path) -> dict[str, tuple[float, float]]:
    """Returns the mean KL per token of plain packing, and of packing after folding, by kind."""
    import torch

    from transformer_lens import HookedTransformer

    exact = HookedTransformer.from_pretrained_no_processing(folder, device="cpu", progress=False)
    tokens = exact.to_tokens(TEXT)
    out: dict[str, tuple[float, float]] = {}
    with torch.no_grad():
        expected = exact(tokens).log_softmax(-1)
        for kind, settings in KINDS.items():
            pair = []
            for load in (HookedTransformer.from_pretrained_no_processing, HookedTransformer.from_pretrained):
                model = load(folder, device="cpu", progress=False, quantization_config=settings)
                found = model(tokens).log_softmax(-1)
                pair.append(float((expected.exp() * (expected - found)).sum(-1).mean()))
            out[kind] = (pair[0], pair[1])
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="Weighs packed loads, and compares packing with folding and packing.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=OUT / "quantized.json")
    options = parser.parse_args(arguments)
    if not can_measure():
        sys.exit("Private memory is read from /proc/<pid>/status, which this system does not have.")
    from demo.smollm2 import bring_folder

    console = Console(width=None if sys.stdout.isatty() else 120)
    plain = bring_folder()
    packed = pack(plain, plain.parent / f"{plain.name}-nf4")
    for folder in (plain, packed):
        warm([folder / "model.safetensors"])
    on_load = {"quantization_config": KINDS["nf4, nested"]}
    rows: dict[str, tuple[str, tuple[Any, ...]]] = {
        "ours, packed folder, assign": ("packed", (str(packed), {"dtype": "auto"})),
        "ours, packed folder, copy": ("packed", (str(packed), {"dtype": "auto", "load_mode": "copy"})),
        "ours, live packed model": ("packed_live", (str(packed),)),
        "ours, packing on load": ("packed", (str(plain), on_load)),
        "ours, packed folder as numbers": ("packed", (str(packed), {"dequantize": True})),
        "transformers, packed folder": ("packed_by_transformers", (str(packed),)),
    }
    found: dict[str, list[Measurement]] = {label: [] for label in rows}
    for _ in range(options.rounds):
        for label, (name, given) in rows.items():
            found[label].append(measure(f"{LOADS}:{name}", *given, after="describe_packed"))
    table = Table("load", "seconds", "private GiB", "peak GiB", "packed GiB", title="SmolLM2-135M-Instruct, nf4 nested")
    result: dict[str, Any] = {"loads": {}}
    for label, measurements in found.items():
        seconds = statistics.median(m.seconds for m in measurements)
        kept = statistics.median(m.kept for m in measurements)
        peak = statistics.median(m.peak for m in measurements)
        told = measurements[0].facts or {}
        table.add_row(
            label, f"{seconds:.2f}", f"{kept / GIB:.3f}", f"{peak / GIB:.3f}", f"{told.get('packed', 0) / GIB:.3f}"
        )
        result["loads"][label] = {"seconds": seconds, "kept": kept, "peak": peak, **told}
    console.print(table)
    result["kl"] = divergences(plain)
    table = Table("packing", "KL, packed", "KL, folded then packed", title="mean KL per token to the float model, nats")
    for kind, (direct, folded) in result["kl"].items():
        table.add_row(kind, f"{direct:.4f}", f"{folded:.4f}")
    console.print(table)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
