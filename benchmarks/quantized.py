"""Weighs packed loads, beside those of others, and asks what processing does to the log-probs of packed models.

    python -m benchmarks.quantized [--full] [--rounds 3] [--models smollm2 llama-3.2-1b] [--envs FOLDER]

Every load runs in a process of its own, in interleaved rounds. SmolLM2-135M-Instruct is the real model; the shape of
Llama-3.2-1B, with random numbers, is what transformer-lens 3 takes packed: from a live transformers model, under its
name. The packed folders are made by transformers first. Then, on a text and with the real model, the mean divergence
KL(float || packed) per token in nats: packed as the file has it, and packed with processing (norms folded, centred).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import options as common
from benchmarks.checkpoint import files_of, hub_home, made
from benchmarks.environments import Environment, environments
from benchmarks.loaders import LOADS
from benchmarks.machine import GIB
from benchmarks.memory import ROOT
from benchmarks.page_cache import warm
from benchmarks.results import save
from benchmarks.rounds import Case, run_rounds
from benchmarks.shapes import SHAPES, Shape
from benchmarks.summary import Spread

SMOLLM2, LLAMA = "smollm2", "llama-3.2-1b"
UPSTREAM = "transformer-lens-3"
KINDS: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "nf4, nested": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    "int8": {"load_in_8bit": True},
}
ON_LOAD = KINDS["nf4, nested"]
TEXT = (
    "The river rises in the hills above the town, and for most of the year it is shallow enough to walk across. In "
    "spring, when the snow melts, it carries trees and fences with it. The people who live beside it have learned to "
    "build their houses on stones. A bridge was begun in 1821 and finished thirty years later, after two floods had "
    "taken its first and its second arch. Today a train crosses it every hour, and children count the wagons."
)


def pack(source: Path, target: Path) -> Path:
    """Lets transformers pack a model and save it, in a process of its own."""
    if not (target / "config.json").exists():
        command = [sys.executable, "-c", _PACK, str(source), str(target), repr(ON_LOAD)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return target


_PACK = """
import ast, sys
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
source, target, settings = sys.argv[1:]
config = BitsAndBytesConfig(**ast.literal_eval(settings))
AutoModelForCausalLM.from_pretrained(source, quantization_config=config).save_pretrained(target)
"""


def cases(plain: Path, packed: Path, tokenizer: Path | None) -> list[tuple[str, Case]]:
    """Returns our own loads and that of transformers, each with its title.

    Args:
        plain: The folder of the float model.
        packed: That of the packed one.
        tokenizer: A folder that has one; None for none.
    """
    named = None if tokenizer is None else str(tokenizer)
    rows: list[tuple[str, str, tuple[Any, ...]]] = [
        ("ours, packed folder, assign", "packed", (str(packed), named, {"dtype": "auto"})),
        ("ours, packed folder, copy", "packed", (str(packed), named, {"dtype": "auto", "load_mode": "copy"})),
        ("ours, live packed model", "ours", (str(packed), False, {"dtype": "auto"}, True)),
        ("ours, packing on load", "packed", (str(plain), named, {"quantization_config": ON_LOAD})),
        ("ours, packing on load, processed", "packed", (str(plain), named, {"quantization_config": ON_LOAD}, True)),
        ("ours, packed folder as numbers", "packed", (str(packed), named, {"dequantize": True})),
        ("transformers, packed folder", "packed_by_transformers", (str(packed),)),
    ]

    def warmed() -> None:
        warm([*files_of(plain), *files_of(packed)])

    return [
        (title, Case(title, f"{LOADS}:{function}", given, Path(sys.executable), ROOT, {}, "describe_packed", warmed))
        for title, function, given in rows
    ]


def upstream(shape: Shape, folder: Path, packed: Path, envs: Path) -> tuple[str, Case]:
    """Returns the load of transformer-lens 3: a live packed model, under the official name of its shape."""
    environment: Environment = environments()[UPSTREAM]
    title = f"{environment.title}, live packed model, no processing"
    variables = {"HF_HOME": str(hub_home(folder)), "HF_HUB_OFFLINE": "1"}
    given = (shape.hub_name, str(packed))
    python = environment.make(envs)
    return title, Case(
        title, f"{LOADS}:packed_by_transformer_lens_3", given, python, None, variables, "describe_packed",
        lambda: warm(files_of(packed)),
    )  # fmt: skip


def divergences(folder: Path) -> dict[str, list[float]]:
    """Returns by kind the mean KL per token of plain packing, and of packing with processing."""
    import torch

    from transformer_lens import HookedTransformer

    exact = HookedTransformer.from_pretrained_no_processing(folder, device="cpu", progress=False)
    tokens = exact.to_tokens(TEXT)
    out: dict[str, list[float]] = {}
    with torch.no_grad():
        expected = exact(tokens).log_softmax(-1)
        for kind, settings in KINDS.items():
            out[kind] = []
            for load in (HookedTransformer.from_pretrained_no_processing, HookedTransformer.from_pretrained):
                model = load(folder, device="cpu", progress=False, quantization_config=settings)
                found = model(tokens).log_softmax(-1)
                out[kind].append(float((expected.exp() * (expected - found)).sum(-1).mean()))
    return out


def measure(title: str, rows: Sequence[tuple[str, Case]], rounds: int, say: Callable[[str], object]) -> dict[str, Any]:
    """Runs the cases, and returns the entry of the results; a load that failed is there with what it said."""
    found = run_rounds([case for _, case in rows], rounds, say)
    return {"title": title, "rounds": rounds, "loads": {name: found[name].to_json() for name, _ in rows}}


def as_table(entry: Mapping[str, Any]) -> Table:
    """Returns the table of one model's loads."""
    table = Table(
        title=f"{entry['title']}, nf4 with nested scales", caption="medians; private memory above the imports"
    )
    table.add_column("load")
    for head in ("seconds", "peak GiB", "kept GiB", "packed GiB", "peak / packed"):
        table.add_column(head, justify="right")
    for title, load in entry["loads"].items():
        if "failed" in load:
            table.add_row(title, f"– ({load['failed']})")
            continue
        seconds, peak, kept = (Spread.of(load[name]).median for name in ("seconds", "peak", "kept"))
        packed = load["facts"]["packed"]
        table.add_row(
            title,
            f"{seconds:.2f}",
            f"{peak / GIB:.3f}",
            f"{kept / GIB:.3f}",
            f"{packed / GIB:.3f}",
            f"{peak / packed:.2f}" if packed else "–",
        )
    return table


def as_kl_table(entry: Mapping[str, Any]) -> Table:
    """Returns the table of divergences."""
    table = Table(title=f"{entry['title']}: mean KL(float || packed) per token, nats", caption="on a text of 90 words")
    for head in ("packing", "packed alone", "packed with processing"):
        table.add_column(head, justify="left" if head == "packing" else "right")
    for kind, (plain, processed) in entry["kl"].items():
        table.add_row(kind, f"{plain:.4f}", f"{processed:.4f}")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = common.parser(__doc__ or "", rounds=(1, 3))
    parser.add_argument("--models", nargs="+", choices=(SMOLLM2, LLAMA), default=(SMOLLM2, LLAMA))
    common.add_environments(parser)
    options = common.parse(parser, arguments)
    console = common.console()

    def say(line: str) -> None:
        console.print(line, style="dim")

    if SMOLLM2 in options.models:
        from demo.smollm2 import bring_folder

        plain = bring_folder()
        packed = pack(plain, plain.parent / f"{plain.name}-nf4")
        entry = measure("SmolLM2-135M-Instruct", cases(plain, packed, plain), options.rounds, say)
        entry["kl"] = divergences(plain)
        console.print(as_table(entry))
        console.print(as_kl_table(entry))
        console.print(f"written: {save('quantized', {SMOLLM2: entry}, options.out)}")
    if LLAMA in options.models:
        shape = SHAPES[LLAMA]
        with made(shape, options.data, keep=options.keep) as folder:
            packed = pack(folder, folder / "nf4")
            rows = [*cases(folder, packed, None), upstream(shape, folder, packed, options.envs)]
            entry = measure(f"{shape.title} shape", rows, options.rounds, say)
        console.print(as_table(entry))
        console.print(f"written: {save('quantized', {LLAMA: entry}, options.out)}")


if __name__ == "__main__":
    main()
