"""What is fuzzed, and what may come of it: a value, or one of our errors. Anything else is a finding.

python -m fuzz.targets safetensors|bin|pickle|gguf|json|adapter [--seconds 300] [--corpus FOLDER]
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["transformer_lens.loading"]):
    from transformer_lens.loading import LoadingError, architectures
    from transformer_lens.loading.checkpoint import bin_file, open_gguf, safetensors
    from transformer_lens.loading.checkpoint.adapter_config import read_adapter_config
    from transformer_lens.loading.checkpoint.checkpoint import wanted_shards
    from transformer_lens.loading.conversion import read_config
    from transformer_lens.loading.sources import GGUFSource
    from transformer_lens.loading.sources.json_files import read_json

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))


def written(data: bytes, name: str) -> Path:
    """Writes one input to a file."""
    path = FOLDER / name
    path.write_bytes(data)
    return path


def fuzz_safetensors(data: bytes) -> None:
    """Reads a header and makes every tensor that it describes."""
    for region in safetensors.read_header(written(data, "model.safetensors")).values():
        region.map().sum()


def fuzz_bin(data: bytes) -> None:
    """Reads the records of a torch file and makes every tensor."""
    for promise in bin_file.read_records(written(data, "pytorch_model.bin")).values():
        promise.make().sum()


def fuzz_pickle(data: bytes) -> None:
    """Runs a pickle as a description inside an archive that is whole, and walks over what it describes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("archive/data.pkl", data)
        for place in range(2):
            file.writestr(f"archive/data/{place}", bytes(24))
    path = written(out.getvalue(), "pickle.bin")
    weights, beside = bin_file.read_nested(path, ("model",))
    for promise in weights.values():
        promise.make().sum()
    repr(beside)


def fuzz_gguf(data: bytes) -> None:
    """Reads a header, its config, and makes every tensor that it describes."""
    checkpoint = open_gguf(GGUFSource(written(data, "model.gguf"), "fuzz"))
    for promise in checkpoint.weights.values():
        promise.make().sum()
    read_config(architectures.find(checkpoint.config, "fuzz"), checkpoint.config, "fuzz")


def fuzz_json(data: bytes) -> None:
    """Reads the same bytes as an index and as a config."""
    path = written(data, "config.json")
    try:
        wanted_shards(path, lambda key: False)
    except LoadingError:
        pass
    config = read_json(path)
    read_config(architectures.find(config, "fuzz"), config, "fuzz")


def fuzz_adapter(data: bytes) -> None:
    """Reads the bytes as an adapter's config, and asks it of every module of a model."""
    config = read_adapter_config(read_json(written(data, "adapter_config.json")), "fuzz")
    for layer in range(8):
        for leaf in ("self_attn.q_proj", "mlp.down_proj"):
            module = f"model.layers.{layer}.{leaf}"
            config.targets(module), config.saves(module), config.scale(module)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "safetensors": fuzz_safetensors,
    "bin": fuzz_bin,
    "pickle": fuzz_pickle,
    "gguf": fuzz_gguf,
    "json": fuzz_json,
    "adapter": fuzz_adapter,
}


# Between them every field that is read.
_ADAPTERS: tuple[dict[str, object], ...] = (
    {"target_modules": ["q_proj"], "rank_pattern": {r".*\.1\..*(q|v)_proj": 7}, "alpha_pattern": {"^(a*){2,3}$": 0.5}},
    {"target_modules": r"(?:.*?[a-z]+\d?\b)|model\.layers\.[\d]{1,}", "exclude_modules": ["k_proj"], "use_dora": True},
    {"target_modules": "all-linear", "modules_to_save": ["lm_head"], "bias": "lora_only", "use_rslora": True},
    {"target_modules": ["q_proj"], "layers_to_transform": [0, 1], "layers_pattern": "layers", "lora_bias": True},
    {"trainable_token_indices": {"embed_tokens": [1, 2]}, "init_lora_weights": "gaussian", "revision": "main"},
)


def seeds(kind: str, folder: Path) -> None:
    """Writes a few right inputs, so that mutation starts from what is read to its end."""
    import json

    import torch
    from safetensors.torch import save

    tensors = {"a.weight": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}
    if kind == "safetensors":
        (folder / "seed").write_bytes(save(tensors))
    elif kind == "bin":
        out = io.BytesIO()
        torch.save(tensors, out)
        (folder / "seed").write_bytes(out.getvalue())
    elif kind == "adapter":
        for number, fields in enumerate(_ADAPTERS):
            (folder / f"seed-{number}").write_text(json.dumps({"peft_type": "LORA", "r": 4, **fields}))
    elif kind == "pickle":
        for protocol in (2, 4):
            out = io.BytesIO()
            beside = {
                "model": tensors,
                "optimizer": {"state": {0: {"step": 1.5}}, "betas": (0.9, 0.95)},
                "n": [None, True],
            }
            torch.save(beside, out, pickle_protocol=protocol)
            with zipfile.ZipFile(out) as archive:
                name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                (folder / f"seed-{protocol}").write_bytes(archive.read(name))
    elif kind == "gguf":
        write_gguf(folder)
    else:
        from tests.tiny_models import VARIANTS

        for name, variant in VARIANTS.items():
            config = variant.config().to_dict()
            (folder / name).write_text(json.dumps({**config, "weight_map": {"a": "model.safetensors"}}))


def write_gguf(folder: Path) -> None:
    """Writes small files of two architectures, with stretched positions, a tokenizer, and packed numbers."""
    import gguf
    import numpy

    for kind, packing in (("llama", None), ("gpt2", None), ("llama", gguf.GGMLQuantizationType.Q8_0)):
        path = folder / f"seed-{kind}-{'plain' if packing is None else packing.name}"
        writer = gguf.GGUFWriter(str(path), kind)
        sizes = (writer.add_context_length, writer.add_embedding_length, writer.add_feed_forward_length)
        for add in sizes:
            add(32)
        writer.add_block_count(1)
        writer.add_head_count(2)
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(4.0)
        writer.add_array("tokenizer.ggml.tokens", ["a", "b", "c"])
        for name in ("token_embd.weight", "blk.0.attn_q.weight"):
            matrix = numpy.ones((32, 32), dtype=numpy.float32)
            packed = matrix if packing is None else gguf.quants.quantize(matrix, packing)
            writer.add_tensor(name, packed, raw_dtype=packing)
        writer.add_tensor("output_norm.weight", numpy.ones(32, dtype=numpy.float32))
        for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
            write()
        writer.close()


def main() -> None:
    """Runs one target for a time; a finding is written beside the corpus and ends the run with its stack."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--corpus", type=Path, default=Path(".cache/fuzz"))
    options = parser.parse_args()
    corpus = options.corpus / options.target
    corpus.mkdir(parents=True, exist_ok=True)
    seeds(options.target, corpus)
    target = TARGETS[options.target]

    def one(data: bytes) -> None:
        try:
            target(data)
        except LoadingError:
            pass

    arguments = [
        sys.argv[0], str(corpus), f"-max_total_time={options.seconds}", "-rss_limit_mb=4096", "-timeout=10",
        f"-artifact_prefix={options.corpus}/finding-{options.target}-",
    ]  # fmt: skip
    atheris.Setup(arguments, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
