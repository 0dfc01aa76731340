"""A Llama-shaped checkpoint of any size that takes next to no disk: a safetensors header, one live layer, and holes."""

from __future__ import annotations

import json
import math
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

D_MODEL, N_HEADS, N_KV_HEADS, D_MLP, D_VOCAB = 4096, 32, 8, 14336, 32000
ITEM = 2  # bytes of a bfloat16


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
    """Writes the checkpoint: the header, the numbers of one neuron and of norms, and no more.

    Args:
        folder: Is made.
        nbytes: That the weights have at least.

    Raises:
        OSError: The file system does not hold files of that size.
    """
    n_layers = math.ceil((nbytes - ITEM * 2 * D_VOCAB * D_MODEL) / _layer_bytes())
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": D_MODEL,
        "num_attention_heads": N_HEADS, "num_key_value_heads": N_KV_HEADS, "intermediate_size": D_MLP,
        "num_hidden_layers": n_layers, "vocab_size": D_VOCAB, "max_position_embeddings": 2048,
        "tie_word_embeddings": False, "rms_norm_eps": 1e-5,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    header: dict[str, dict[str, object]] = {}
    starts: dict[str, int] = {}
    end = 0
    for name, shape in _tensors(n_layers):
        start, end = end, end + ITEM * math.prod(shape)
        starts[name] = start
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    begin = 8 + len(text)
    live = n_layers // 2
    w_in = [(place % 7 - 3) / 64 for place in range(D_MODEL)]
    w_out = [(place % 5 - 2) / 4 for place in range(D_MODEL)]
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(begin + end)
        layer = f"model.layers.{live}"

        def put(name: str, numbers: bytes, offset: int = 0) -> None:
            file.seek(begin + starts[name] + offset)
            file.write(numbers)

        put(f"{layer}.post_attention_layernorm.weight", _bfloat16([1.0] * D_MODEL))
        for matrix in ("up_proj", "gate_proj"):
            put(f"{layer}.mlp.{matrix}.weight", _bfloat16(w_in))
        column = _bfloat16(w_out)
        for row in range(D_MODEL):
            put(f"{layer}.mlp.down_proj.weight", column[ITEM * row : ITEM * row + ITEM], ITEM * row * D_MLP)
    return SparseLlama(folder, end, n_layers, live, w_in, w_out)


def _bfloat16(numbers: list[float]) -> bytes:
    """Returns numbers that bfloat16 can hold exactly: the upper half of their float32."""
    return b"".join(struct.pack("<I", word)[2:] for word in array("I", array("f", numbers).tobytes()))


def _layer_bytes() -> int:
    return sum(ITEM * math.prod(shape) for _, shape in _layer("x"))


def _layer(prefix: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    head = D_MODEL // N_HEADS
    yield f"{prefix}.input_layernorm.weight", (D_MODEL,)
    yield f"{prefix}.post_attention_layernorm.weight", (D_MODEL,)
    yield f"{prefix}.self_attn.q_proj.weight", (D_MODEL, D_MODEL)
    yield f"{prefix}.self_attn.k_proj.weight", (N_KV_HEADS * head, D_MODEL)
    yield f"{prefix}.self_attn.v_proj.weight", (N_KV_HEADS * head, D_MODEL)
    yield f"{prefix}.self_attn.o_proj.weight", (D_MODEL, D_MODEL)
    yield f"{prefix}.mlp.gate_proj.weight", (D_MLP, D_MODEL)
    yield f"{prefix}.mlp.up_proj.weight", (D_MLP, D_MODEL)
    yield f"{prefix}.mlp.down_proj.weight", (D_MODEL, D_MLP)


def _tensors(n_layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.embed_tokens.weight", (D_VOCAB, D_MODEL)
    for layer in range(n_layers):
        yield from _layer(f"model.layers.{layer}")
    yield "model.norm.weight", (D_MODEL,)
    yield "lm_head.weight", (D_VOCAB, D_MODEL)
