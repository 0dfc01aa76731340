"""Checkpoints of every family for the plan's benchmark: random numbers, 150 to 400 MB, made once."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.checkpoint import CACHE


@dataclass(frozen=True)
class Shape:
    """A model by its transformers config and the dtype of its file."""

    config_class: str
    dtype: str
    settings: dict[str, Any]


_LLAMA = {
    "hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 4, "intermediate_size": 2816,
    "vocab_size": 16384, "num_hidden_layers": 8, "max_position_embeddings": 2048,
}  # fmt: skip
SHAPES = {
    "gpt2": Shape("GPT2Config", "float32", {"n_embd": 768, "n_head": 12, "n_layer": 6, "vocab_size": 32000}),
    # Attention is most of it: what rotating its factors takes shows in the peak.
    "gpt2-wide": Shape(
        "GPT2Config",
        "float32",
        {"n_embd": 2048, "n_head": 16, "n_layer": 3, "n_inner": 256, "vocab_size": 512, "n_positions": 256},
    ),
    "neox": Shape(
        "GPTNeoXConfig",
        "float16",
        {
            "hidden_size": 1024, "num_attention_heads": 8, "intermediate_size": 4096, "vocab_size": 24000,
            "num_hidden_layers": 6, "max_position_embeddings": 2048,
        },
    ),
    "llama": Shape("LlamaConfig", "bfloat16", _LLAMA),
    "llama-f32": Shape("LlamaConfig", "float32", {**_LLAMA, "num_hidden_layers": 5, "tie_word_embeddings": True}),
    "mistral": Shape("MistralConfig", "bfloat16", {**_LLAMA, "num_hidden_layers": 6}),
    "qwen2": Shape("Qwen2Config", "bfloat16", {**_LLAMA, "num_hidden_layers": 6, "tie_word_embeddings": True}),
    "phi3": Shape(
        "Phi3Config",
        "bfloat16",
        {**_LLAMA, "num_hidden_layers": 6, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    ),
}  # fmt: skip


def make(name: str) -> Path:
    """Writes the checkpoint of a shape by transformers, unless it is there already; returns its folder."""
    folder = CACHE / f"plan-{name}"
    if folder.is_dir():
        return folder
    import torch
    import transformers

    shape = SHAPES[name]
    config = getattr(transformers, shape.config_class)(**shape.settings)
    torch.manual_seed(5)
    model = transformers.AutoModelForCausalLM.from_config(config).to(getattr(torch, shape.dtype))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as partial:
        model.save_pretrained(Path(partial) / "made")
        os.rename(Path(partial) / "made", folder)
    return folder
