"""What the benchmarks of many loads run, step by step: generators whose first ``yield`` comes before any load."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks import loads

OURS, OURS_COPY, OURS_PROCESSED, TRANSFORMERS = "ours", "ours-copy", "ours-default", "transformers"


def loader(folder: str, way: str) -> Callable[[], Any]:
    """Returns the load of a folder; the libraries are imported now."""
    auto = {"dtype": "auto"}
    return {
        OURS: lambda: loads.ours(folder, False, auto),
        OURS_COPY: lambda: loads.ours(folder, False, {**auto, "load_mode": "copy"}),
        OURS_PROCESSED: lambda: loads.ours(folder, True, {}),
        TRANSFORMERS: lambda: loads.transformers(folder, "auto"),
    }[way]()


def read_every_weight(model: torch.nn.Module) -> float:
    """Reads every parameter, so that all its pages are there, and runs a short forward pass; returns a sum."""
    with torch.inference_mode():
        total = sum(float(parameter.sum()) for parameter in model.parameters())
        model(torch.arange(1, 9)[None])
    return total


def hold(folder: str, way: str) -> Iterator[Any]:
    """Loads, then reads every weight, then stays."""
    torch.set_num_threads(1)
    load = loader(folder, way)
    yield None
    model = load()
    yield None
    yield read_every_weight(model)


def fork(folder: str, way: str, workers: int) -> Iterator[Any]:
    """Loads, then forks workers that read every weight and stay, as a DataLoader's do."""
    torch.set_num_threads(1)
    load = loader(folder, way)
    yield None
    model = load()
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
    chosen = [loader(folder, way) for folder in folders]
    yield None
    held: list[Any] = []
    for folder, load in zip(folders, chosen):
        held.clear()
        held.append(load())
        yield Path(folder).name
