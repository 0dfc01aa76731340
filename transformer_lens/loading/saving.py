"""Writes a model to a folder that ``from_pretrained`` reads: config, tensors, tokenizer, report."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transformer_lens import anatomy
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.architectures.saved_model import FORMAT, MODEL_TYPE, saved_fields, stored_axes
from transformer_lens.loading.errors import MissingTensorError, QuantizedTensorError
from transformer_lens.loading.report import LoadReport
from transformer_lens.loading.sources.json_files import read_json
from transformer_lens.loading.versions import versions

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def save_model(
    parameters: Mapping[str, Tensor],
    cfg: HookedTransformerConfig,
    folder: str | Path,
    *,
    tokenizer: Any = None,
    stop_tokens: tuple[int, ...] = (),
    report: LoadReport | None = None,
    max_shard_bytes: int = 5 << 30,
) -> Path:
    """Writes a model to a folder; the tensors of one file at a time are held beside the model, where they are copied.

    Args:
        parameters: By name; those of the model's schema are written.
        cfg: What the model is.
        folder: Made where it is not there; a model that was saved there before is replaced.
        tokenizer: Saved beside the weights, or None.
        stop_tokens: What ends a text besides the tokenizer's EOS.
        report: What the load of the model did, kept beside it.
        max_shard_bytes: Bytes of tensors in one file at most, unless one tensor alone is larger.

    Raises:
        MissingTensorError: A parameter is not there.
        QuantizedTensorError: Parameters are packed.
        FileExistsError: The folder holds a checkpoint that was not saved here.
        OSError, SafetensorError: The files cannot be written; a model that was saved there before is there still.
    """
    from safetensors.torch import save_file

    axes = anatomy.schema(cfg)
    missing = [name for name in axes if name not in parameters]
    if missing:
        raise MissingTensorError("The model lacks parameters of its config: " + ", ".join(missing[:8]))
    packed = [name for name in axes if parameters[name].dtype not in _FLOATS]
    if packed:
        raise QuantizedTensorError(
            f"{packed[0]} and {len(packed) - 1} more are packed, and a packed model is not saved here.\n"
            "  Keep the checkpoint that it was loaded from, or load it with dequantize=True and save that."
        )
    path = Path(folder).expanduser()
    _refuse_another_model(path)
    path.mkdir(parents=True, exist_ok=True)
    shards = list(_shards({name: parameters[name] for name in axes}, max_shard_bytes))
    index: dict[str, str] = {}
    # The model may be the mapping of files of these names: none is written into, and all are replaced at the end.
    parts: dict[Path, Path] = {}
    try:
        for number, names in enumerate(shards, start=1):
            file = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
            part = path / f".{file}.part"
            parts[part] = path / file
            save_file({name: _stored(parameters[name], name, axes[name]) for name in names}, part, {"format": "pt"})
            index |= dict.fromkeys(names, file)
        for part, whole in parts.items():
            os.replace(part, whole)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    for stale in set(path.glob("model*.safetensors")) - {path / file for file in index.values()}:
        stale.unlink()
    index_file = path / "model.safetensors.index.json"
    if len(shards) > 1:
        total = sum(parameters[name].numel() * parameters[name].element_size() for name in axes)
        _write_json(index_file, {"metadata": {"total_size": total}, "weight_map": index})
    else:
        index_file.unlink(missing_ok=True)
    _write_json(path / "config.json", _config_json(cfg, stop_tokens, report))
    if report is not None:
        (path / "load_report.json").write_text(report.to_json(2) + "\n", encoding="utf-8")
    if tokenizer is not None:
        tokenizer.save_pretrained(str(path))
    return path


def _refuse_another_model(path: Path) -> None:
    config = path / "config.json"
    if config.exists() and read_json(config).get("model_type") != MODEL_TYPE:
        raise FileExistsError(
            f"{path} holds another checkpoint, whose config.json is not of save_pretrained: nothing was written.\n"
            "  Name a folder of its own."
        )


def _config_json(
    cfg: HookedTransformerConfig, stop_tokens: tuple[int, ...], report: LoadReport | None
) -> dict[str, Any]:
    said = {
        "format": FORMAT,
        "config": saved_fields(cfg),
        "processing": [] if report is None else list(report.steps),
        "versions": dict(versions()),
    }
    out: dict[str, Any] = {"architectures": ["HookedTransformer"], "model_type": MODEL_TYPE, "transformer_lens": said}
    return {**out, "eos_token_id": list(stop_tokens)} if stop_tokens else out


def _shards(parameters: Mapping[str, Tensor], largest: int) -> Iterator[list[str]]:
    """Yields the names of each file, in order."""
    names: list[str] = []
    size = 0
    for name, parameter in parameters.items():
        nbytes = parameter.numel() * parameter.element_size()
        if names and size + nbytes > largest:
            yield names
            names, size = [], 0
        names.append(name)
        size += nbytes
    yield names


def _stored(parameter: Tensor, name: str, axes: str) -> Tensor:
    """Returns a parameter with its axes as the file has them: a view where the memory lies so."""
    ours, file = axes.split(), stored_axes(name, axes).split()
    return parameter.detach().permute([ours.index(axis) for axis in file]).contiguous()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
