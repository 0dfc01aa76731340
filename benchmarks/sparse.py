"""A Llama-shaped checkpoint of any size that takes next to no disk: a safetensors header, one live layer, and holes."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.checkpoint import make
from benchmarks.shapes import BYTES, SHAPES, Shape

LLAMA = SHAPES["llama-8b"]
SIZES = {"vocab_size": 32000, "max_position_embeddings": 2048}


@dataclass(frozen=True)
class SparseLlama:
    """Where it is, and the one layer whose numbers are not all zero.

    In that layer the norm before the MLP is one, and of the MLP only the first neuron is alive: `w_in` is its row of
    `up_proj` and of `gate_proj`, `w_out` its column of `down_proj`. The layer adds
    ``silu(w_in . x) (w_in . x) w_out`` to the residual stream, x being the normed stream; every other layer adds zero.

    Attributes:
        folder: With config.json and model.safetensors.
        nbytes: Of the weights.
        n_layers: Layers.
        live: The layer that adds something.
        w_in: [d_model]
        w_out: [d_model]
    """

    folder: Path
    nbytes: int
    n_layers: int
    live: int
    w_in: list[float]
    w_out: list[float]


def has_holes(path: Path) -> bool:
    """Whether a file takes much less of the disk than its size says."""
    found = path.stat()
    return found.st_blocks * 512 < found.st_size // 10


def make_sparse_llama(folder: Path, nbytes: int) -> SparseLlama:
    """Writes the checkpoint: the header, the numbers of one neuron and of a norm, and no more.

    Args:
        folder: Is made.
        nbytes: That the weights have at least.

    Raises:
        OSError: The file system does not hold files of that size.
    """
    beside_layers = _of(0).nbytes
    shape = _of(math.ceil((nbytes - beside_layers) / (_of(1).nbytes - beside_layers)))
    make(shape, folder, "sparse", shard_bytes=shape.nbytes)
    width, hidden = shape.config["hidden_size"], shape.config["intermediate_size"]
    item = BYTES[shape.dtype]
    live = shape.layers // 2
    w_in = [(place % 7 - 3) / 64 for place in range(width)]
    w_out = [(place % 5 - 2) / 4 for place in range(width)]
    with (folder / "model.safetensors").open("r+b") as file:
        begin = 8 + int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(begin - 8))

        def put(name: str, numbers: bytes, offset: int = 0) -> None:
            file.seek(begin + header[f"model.layers.{live}.{name}"]["data_offsets"][0] + offset)
            file.write(numbers)

        put("post_attention_layernorm.weight", _bytes([1.0] * width, shape.dtype))
        for matrix in ("up_proj", "gate_proj"):
            put(f"mlp.{matrix}.weight", _bytes(w_in, shape.dtype))
        column = _bytes(w_out, shape.dtype)
        for row in range(width):
            put("mlp.down_proj.weight", column[item * row : item * row + item], item * row * hidden)
    return SparseLlama(folder, shape.nbytes, shape.layers, live, w_in, w_out)


def _of(layers: int) -> Shape:
    return LLAMA.resized(f"llama-{layers}-layers", num_hidden_layers=layers, **SIZES)


def _bytes(numbers: list[float], dtype: str) -> bytes:
    """Returns numbers that the dtype holds exactly."""
    return torch.tensor(numbers, dtype=getattr(torch, dtype)).view(torch.uint8).numpy().tobytes()
