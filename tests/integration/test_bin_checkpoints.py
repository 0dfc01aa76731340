"""``.bin`` checkpoints against safetensors of the same model: the same bits, the same memory."""

import json

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.checkpoint import make_gpt2
from benchmarks.memory import can_measure, measure
from tests.tiny_models import VARIANTS, save
from transformer_lens import HookedTransformer
from transformer_lens.loading.loaders import can_assign

EMBEDDING = 50257 * 1024 * 4
NAMES = ["gpt2", "gpt-neox", "llama-tied", "mistral", "qwen2", "phi3-gqa"]


def as_bin(source, target, shards):
    """Writes the tensors of a safetensors folder as one or several files of ``torch.save``."""
    tensors = load_file(source / "model.safetensors")
    target.mkdir()
    (target / "config.json").write_text((source / "config.json").read_text())
    if shards == 1:
        torch.save(tensors, target / "pytorch_model.bin")
        return target
    names = [f"pytorch_model-{place + 1:05}-of-{shards:05}.bin" for place in range(shards)]
    weight_map = {key: names[place % shards] for place, key in enumerate(sorted(tensors))}
    for name in names:
        torch.save({key: tensors[key] for key, file in weight_map.items() if file == name}, target / name)
    (target / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return target


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_the_same_bits(name, shards, tmp_path):
    folder = save(VARIANTS[name], tmp_path / "safetensors")
    other = as_bin(folder, tmp_path / "bin", shards)
    for load in (HookedTransformer.from_pretrained, HookedTransformer.from_pretrained_no_processing):
        ours, theirs = load(folder, device="cpu"), load(other, device="cpu")
        assert ours.load_report.bytes_mapped == theirs.load_report.bytes_mapped
        assert ours.load_report.io == theirs.load_report.io and ours.load_report.io.startswith("map")
        for (key, one), (_, two) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            assert torch.equal(one, two), key


def unprocessed(folder):
    return lambda: HookedTransformer.from_pretrained_no_processing(folder, device="cpu", progress=False)


def size_of(model):
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


@pytest.mark.skipif(not can_measure(), reason="this system does not say how much memory is private")
def test_the_same_memory(tmp_path):
    folder = make_gpt2()
    other = as_bin(folder, tmp_path / "bin", 1)
    for place in (folder, other):
        found = measure(f"{__file__}:unprocessed", str(place), after="size_of")
        # A torch that cannot assign copies what is mapped, one tensor after the other: the embedding is the largest.
        assert found.peak <= (0.02 if can_assign() else 1.0) * found.facts + (0 if can_assign() else EMBEDDING), place
