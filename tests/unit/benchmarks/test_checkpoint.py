import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.checkpoint import as_hub_cache, files_of, hub_home, made, make, snapshot
from benchmarks.shapes import SHAPES, gpt2_of

TINY = SHAPES["tiny"]
SMALL_LLAMA = SHAPES["llama-3.2-1b"].resized(
    "small-llama",
    hidden_size=40,
    intermediate_size=56,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=10,
    num_hidden_layers=2,
    vocab_size=101,
)


def tensors_of(folder):
    return {name: tensor for file in files_of(folder) for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("shape", [TINY, SMALL_LLAMA], ids=lambda shape: shape.name)
@pytest.mark.parametrize("fill", ["random", "sparse"])
def test_the_file_has_the_shapes(shape, fill, tmp_path):
    tensors = tensors_of(make(shape, tmp_path / "made", fill))
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {t.name: t.shape for t in shape.tensors()}
    assert {tensor.dtype for tensor in tensors.values()} == {getattr(torch, shape.dtype)}
    assert sum(tensor.numel() for tensor in tensors.values()) == shape.parameters
    assert any(tensor.any() for tensor in tensors.values()) == (fill == "random")


def test_numbers_are_spread_as_the_shape_says(tmp_path):
    tensors = tensors_of(make(gpt2_of(1, width=256, vocabulary=500), tmp_path / "made"))
    matrix = tensors["transformer.h.0.attn.c_attn.weight"]
    assert float(matrix.std()) == pytest.approx(0.5 / 16, rel=0.02)
    assert float(tensors["transformer.h.0.ln_1.weight"].mean()) == pytest.approx(1.0, abs=0.05)


def test_shards_change_no_number(tmp_path):
    whole, parts = make(TINY, tmp_path / "whole"), make(TINY, tmp_path / "parts", shard_bytes=20_000)
    assert len(files_of(whole)) == 1 and len(files_of(parts)) > 3
    index = json.loads((parts / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {file.name for file in files_of(parts)}
    ours, theirs = tensors_of(whole), tensors_of(parts)
    assert ours.keys() == theirs.keys() == index["weight_map"].keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_seeds_make_different_checkpoints_and_one_seed_the_same(tmp_path):
    one, same, other = (
        files_of(make(TINY, tmp_path / str(n), seed=s))[0].read_bytes() for n, s in enumerate((1, 1, 2))
    )
    assert one == same != other


def test_a_checkpoint_goes_when_it_was_made_for_the_occasion(tmp_path):
    with made(TINY, tmp_path) as folder:
        assert folder.is_dir() and hub_home(folder).is_dir()
    assert list(tmp_path.iterdir()) == []
    with made(TINY, tmp_path, keep=True) as folder:
        pass
    with made(TINY, tmp_path) as again:
        assert again == folder
    assert folder.is_dir()


def test_a_hub_name_means_the_checkpoint(tmp_path):
    folder = make(TINY, tmp_path / "made")
    as_hub_cache(folder, "some/name")
    place = snapshot(folder, "some/name")
    assert (place / "model.safetensors").samefile(folder / "model.safetensors")
    assert Path(place.parents[1] / "refs" / "main").read_text() == place.name
    assert "tokenizer.json" in {file.name for file in place.iterdir()}


@pytest.mark.parametrize("shape", [TINY, SMALL_LLAMA], ids=lambda shape: shape.name)
def test_transformers_takes_every_key(shape, tmp_path):
    from transformers import AutoModelForCausalLM

    folder = make(shape, tmp_path / "made")
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    tensors = tensors_of(folder)
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    ("name", "billions"),
    [("gpt2", 0.124), ("gpt2-xl", 1.56), ("llama-3.2-1b", 1.24), ("llama-3.2-3b", 3.21), ("llama-8b", 8.03)],
)
def test_shapes_have_the_sizes_of_their_names(name, billions):
    assert SHAPES[name].parameters / 1e9 == pytest.approx(billions, rel=0.005)
