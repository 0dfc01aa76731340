"""What the benchmarks of many loads run, step by step: generators whose first ``yield`` comes before any load."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

OURS, OURS_COPY, OURS_PROCESSED, TRANSFORMERS = "ours", "ours-copy", "ours-default", "transformers"


def loader(way: str) -> Callable[[str], Any]:
    """Returns the load of a folder; the libraries are imported now."""
    if way == TRANSFORMERS:
        from transformers import AutoModelForCausalLM, GPT2LMHeadModel, LlamaForCausalLM  # noqa: F401  # imported lazily

        return lambda folder: AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    from transformer_lens import HookedTransformer

    method, arguments = {
        OURS: (HookedTransformer.from_pretrained_no_processing, {"dtype": "auto"}),
        OURS_COPY: (HookedTransformer.from_pretrained_no_processing, {"dtype": "auto", "load_mode": "copy"}),
        OURS_PROCESSED: (HookedTransformer.from_pretrained, {}),
    }[way]
    return lambda folder: method(folder, device="cpu", progress=False, **arguments)


def read_every_weight(model: torch.nn.Module) -> float:
    """Reads every parameter, so that all its pages are there, and runs a short forward pass; returns a sum."""
    with torch.inference_mode():
        total = sum(float(parameter.sum()) for parameter in model.parameters())
        model(torch.arange(1, 9)[None])
    return total


def hold(folder: str, way: str) -> Iterator[Any]:
    """Loads, then reads every weight, then stays."""
    torch.set_num_threads(1)
    load = loader(way)
    yield None
    model = load(folder)
    yield None
    yield read_every_weight(model)


def fork(folder: str, way: str, workers: int) -> Iterator[Any]:
    """Loads, then forks workers that read every weight and stay, as a DataLoader's do."""
    torch.set_num_threads(1)
    load = loader(way)
    yield None
    model = load(folder)
    yield None
    read_every_weight(model)
    held, wait = os.pipe()
    children, sums = [], []
    for _ in range(workers):
        heard, said = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(wait)
            os.write(said, f"{read_every_weight(model)!r}\n".encode())
            os.read(held, 1)  # until the parent ends
            os._exit(0)
        os.close(said)
        with open(heard) as answer:
            sums.append(float(answer.readline()))
        children.append(pid)
    yield {"workers": children, "sums": sums}
    os.close(wait)


def switch(folders: list[str], way: str) -> Iterator[Any]:
    """Loads one checkpoint after another under one name; the one before is let go first."""
    load = loader(way)
    yield None
    held: list[Any] = []
    for folder in folders:
        held.clear()
        held.append(load(folder))
        yield Path(folder).name
