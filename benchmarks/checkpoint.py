"""Makes the seeded checkpoints that the benchmarks load: random numbers, written without ever holding a model."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from benchmarks.shapes import BYTES, SHAPES, Shape, TensorShape

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "bench"
SEED = 3
SHARD_BYTES = 5_000_000_000
BLOCK = 1 << 24
"""Elements of random numbers made at once."""
FORMAT_NAMES = {"float32": "F32", "bfloat16": "BF16"}
COMMIT = "0" * 40

# Writes the bytes of one tensor.
Filler = Callable[[BinaryIO, TensorShape], None]


def make(shape: Shape, folder: Path, fill: str = "random", seed: int = SEED, shard_bytes: int = SHARD_BYTES) -> Path:
    """Writes a checkpoint of a shape, unless it is there already; there is no tokenizer.

    Args:
        shape: What to write.
        folder: Where ``config.json`` and the shards will be.
        fill: ``"random"`` for seeded normal numbers; ``"sparse"`` for zeros that take no disk (holes), made at once.
        seed: Of the numbers.
        shard_bytes: The most bytes of tensors in one file; a file has at least one tensor.

    Returns:
        The folder.
    """
    if folder.is_dir():
        return folder
    filler = {"random": lambda: _random(shape.dtype, seed), "sparse": lambda: _hole(shape.dtype)}[fill]()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as partial:
        made = Path(partial) / "checkpoint"
        made.mkdir()
        (made / "config.json").write_text(json.dumps(shape.config, indent=2) + "\n")
        shards = list(_shards(shape, shard_bytes))
        weight_map = {}
        for number, tensors in enumerate(shards, 1):
            name = f"model-{number:05d}-of-{len(shards):05d}.safetensors" if len(shards) > 1 else "model.safetensors"
            _write(made / name, tensors, shape.dtype, filler)
            weight_map.update({tensor.name: name for tensor in tensors})
        if len(shards) > 1:
            index = {"metadata": {"total_size": shape.nbytes}, "weight_map": weight_map}
            (made / "model.safetensors.index.json").write_text(json.dumps(index))
        os.rename(made, folder)
    return folder


def make_gpt2(folder: Path = CACHE / "gpt2-medium-float32", **sizes: int) -> Path:
    """Writes a float32 checkpoint of GPT-2 medium (1.3 GiB), or of other sizes, unless it is there already."""
    return make(SHAPES["gpt2-medium"].resized(folder.name, **sizes), folder)


@contextmanager
def made(shape: Shape, data: Path, fill: str = "random", keep: bool = False, seed: int = SEED) -> Iterator[Path]:
    """Yields a checkpoint's folder under `data`; one that was not there before goes afterwards, unless kept."""
    folder = data / f"{shape.name}-{shape.dtype}-{fill}-{seed}"
    was_there = folder.is_dir()
    home = as_hub_cache(make(shape, folder, fill, seed), shape.hub_name or shape.name)
    try:
        yield folder
    finally:
        if not keep and not was_there:
            shutil.rmtree(folder)
            shutil.rmtree(home)


def files_of(folder: Path) -> list[Path]:
    """Returns the files with weights, in name order."""
    return sorted(folder.glob("*.safetensors"))


def _shards(shape: Shape, shard_bytes: int) -> Iterator[list[TensorShape]]:
    shard: list[TensorShape] = []
    filled = 0
    for tensor in shape.tensors():
        size = tensor.size * BYTES[shape.dtype]
        if shard and filled + size > shard_bytes:
            yield shard
            shard, filled = [], 0
        shard.append(tensor)
        filled += size
    yield shard


def _write(path: Path, tensors: list[TensorShape], dtype: str, filler: Filler) -> None:
    """Writes one safetensors file: the header's length, the header, then tensor after tensor."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in tensors:
        end = at + tensor.size * BYTES[dtype]
        header[tensor.name] = {"dtype": FORMAT_NAMES[dtype], "shape": tensor.shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for tensor in tensors:
            filler(file, tensor)
        file.truncate()
        file.flush()
        # Pages that are not on the disk yet cannot be dropped from the page cache.
        os.fsync(file.fileno())


def _random(dtype: str, seed: int) -> Filler:
    import torch

    generator = torch.Generator().manual_seed(seed)
    numbers = torch.empty(BLOCK)

    def fill(file: BinaryIO, tensor: TensorShape) -> None:
        for start in range(0, tensor.size, BLOCK):
            block = numbers[: min(BLOCK, tensor.size - start)]
            block.normal_(tensor.mean, tensor.std, generator=generator)
            file.write(memoryview(block.to(getattr(torch, dtype)).view(torch.uint8).numpy()))

    return fill


def _hole(dtype: str) -> Filler:
    def fill(file: BinaryIO, tensor: TensorShape) -> None:
        file.seek(tensor.size * BYTES[dtype], os.SEEK_CUR)

    return fill


def hub_home(folder: Path) -> Path:
    """Returns where `as_hub_cache` puts the Hugging Face home of a checkpoint."""
    return folder.with_name(folder.name + "-hub")


def snapshot(folder: Path, name: str) -> Path:
    """Returns the folder in that home that has the weights and a tokenizer."""
    return hub_home(folder) / "hub" / f"models--{name.replace('/', '--')}" / "snapshots" / COMMIT


def as_hub_cache(folder: Path, name: str = "gpt2-medium") -> Path:
    """Makes a Hugging Face home in which a hub name means this checkpoint, for libraries that take no folder.

    The weights are links; the tokenizer, which such a library insists on, knows two words.
    """
    home, place = hub_home(folder), snapshot(folder, name)
    if place.is_dir():
        return home
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as partial:
        made = Path(partial) / "snapshot"
        made.mkdir()
        for file in folder.iterdir():
            (made / file.name).symlink_to(file.resolve())
        (made / "tokenizer.json").write_text(json.dumps(_two_word_tokenizer()))
        (made / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<e>", "eos_token": "<e>"})
        )
        references = place.parents[1] / "refs"
        references.mkdir(parents=True, exist_ok=True)
        (references / "main").write_text(COMMIT)
        place.parent.mkdir(exist_ok=True)
        os.rename(made, place)
    return home


def _two_word_tokenizer() -> dict[str, object]:
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": 0, "content": "<e>", **special}],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {"<e>": 0, "word": 1}, "unk_token": "<e>"},
    }
