"""Makes the seeded checkpoint that the benchmarks load: the shape of GPT-2 medium, random numbers, 1.3 GiB."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "bench"
GPT2_MEDIUM = {"n_layer": 24, "n_embd": 1024, "n_head": 16, "vocab_size": 50257, "n_positions": 1024}
SEED = 3


def make_gpt2(folder: Path = CACHE / "gpt2-medium-float32", **sizes: int) -> Path:
    """Writes a float32 GPT-2 checkpoint of random numbers, unless it is there already.

    Args:
        folder: Where ``config.json`` and ``model.safetensors`` will be; there is no tokenizer.
        **sizes: Fields of the config to change, for a smaller one.

    Returns:
        The folder.
    """
    if folder.is_dir():
        return folder
    import torch
    from safetensors.torch import save_file

    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "dtype": "float32",
        "torch_dtype": "float32",
        **GPT2_MEDIUM,
        **sizes,
    }
    # Upstream reads the length by this older name.
    config["n_ctx"] = config["n_positions"]
    generator = torch.Generator().manual_seed(SEED)
    width, vocab = int(config["n_embd"]), int(config["vocab_size"])

    def normal(*shape: int, std: float, mean: float = 0.0) -> torch.Tensor:
        return torch.empty(shape).normal_(mean, std, generator=generator)

    tensors = {
        "transformer.wte.weight": normal(vocab, width, std=0.1),
        "transformer.wpe.weight": normal(int(config["n_positions"]), width, std=0.02),
    }
    shapes = {
        "attn.c_attn": (width, 3 * width),
        "attn.c_proj": (width, width),
        "mlp.c_fc": (width, 4 * width),
        "mlp.c_proj": (4 * width, width),
    }
    for layer in range(int(config["n_layer"])):
        block = f"transformer.h.{layer}"
        for norm in ("ln_1", "ln_2"):
            tensors[f"{block}.{norm}.weight"] = normal(width, std=0.1, mean=1.0)
            tensors[f"{block}.{norm}.bias"] = normal(width, std=0.1)
        for name, (rows, columns) in shapes.items():
            tensors[f"{block}.{name}.weight"] = normal(rows, columns, std=0.5 / math.sqrt(rows))
            tensors[f"{block}.{name}.bias"] = normal(columns, std=0.1)
    tensors["transformer.ln_f.weight"] = normal(width, std=0.1, mean=1.0)
    tensors["transformer.ln_f.bias"] = normal(width, std=0.1)

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as partial:
        made = Path(partial) / "checkpoint"
        made.mkdir()
        (made / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_file(tensors, made / "model.safetensors", {"format": "pt"})
        os.rename(made, folder)
    return folder


def as_hub_cache(folder: Path, name: str = "gpt2-medium") -> Path:
    """Makes a Hugging Face home in which a hub name means this checkpoint, for libraries that take no folder.

    The weights are a link; the tokenizer, which such a library insists on, knows two words.
    """
    home = folder.with_name(folder.name + "-hub")
    repository = home / "hub" / f"models--{name.replace('/', '--')}"
    commit = "0" * 40
    snapshot = repository / "snapshots" / commit
    if snapshot.is_dir():
        return home
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as partial:
        made = Path(partial) / "snapshot"
        made.mkdir()
        for file in ("config.json", "model.safetensors"):
            (made / file).symlink_to(folder / file)
        (made / "tokenizer.json").write_text(json.dumps(_two_word_tokenizer()))
        (made / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<e>", "eos_token": "<e>"})
        )
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / "main").write_text(commit)
        snapshot.parent.mkdir(exist_ok=True)
        os.rename(made, snapshot)
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
