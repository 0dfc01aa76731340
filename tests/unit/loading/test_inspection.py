"""``inspect_checkpoint``: every tensor of a file is a row, with the bytes that it takes in the file."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny_models import VARIANTS, make_model, save
from transformer_lens.loading import Request, inspect_checkpoint

BLOCK = 64


def rows_of(path, **arguments):
    found = inspect_checkpoint(Request(str(path), device="cpu", **arguments))
    assert found.problem == "" and found.nbytes == sum(entry.nbytes for entry in found.entries)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["gpt2", "llama-gqa", "phi3-gqa"])
def test_bytes_are_those_of_the_file(name, dtype, tmp_path):
    folder = save(VARIANTS[name], tmp_path, dtype)
    stored = load_file(folder / "model.safetensors")
    found = rows_of(folder)
    assert {entry.key: entry.nbytes for entry in found.entries} == {
        key: tensor.numel() * tensor.element_size() for key, tensor in stored.items()
    }
    torch.save(stored, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert rows_of(folder).nbytes == found.nbytes


@pytest.mark.parametrize("packing", ["F32", "F16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("first", [None, 1])
def test_bytes_of_packed_gguf_are_those_of_the_file_too(packing, first, tmp_path):
    gguf = pytest.importorskip("gguf")
    from tests.unit.loading.test_gguf_reader import as_gguf

    # Packed rows are whole blocks of 32 numbers.
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 8, "num_key_value_heads": 8}
    variant = dataclasses.replace(VARIANTS["llama-square"], settings={**VARIANTS["llama-square"].settings, **sizes})
    path = as_gguf(
        make_model(variant),
        tmp_path / "m.gguf",
        gguf.GGMLQuantizationType[packing],
        rope_freqs=[1.0] * 4,
    )
    written = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    found = rows_of(path, first_n_layers=first)
    if first is None:
        assert len(found.entries) == len(written)
        assert found.nbytes == sum(int(tensor.n_bytes) for tensor in written.values()) < path.stat().st_size
    assert [entry.taken_by for entry in found.entries if entry.key == "rope_freqs.weight"] == [("rotary frequencies",)]
    (matrix,) = (entry for entry in found.entries if entry.key.endswith("layers.0.mlp.up_proj.weight"))
    assert matrix.nbytes == written["blk.0.ffn_up.weight"].n_bytes
    assert matrix.dtype == {"F32": "float32", "F16": "float16"}.get(packing, packing)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_packed_folder_says_how_it_is_packed(bits, tmp_path):
    folder = save(VARIANTS["llama-square"], tmp_path)
    stored = load_file(folder / "model.safetensors")
    key = "model.layers.0.mlp.down_proj.weight"
    rows, columns = stored[key].shape
    config = json.loads((folder / "config.json").read_text())
    if bits == 4:
        state = {"quant_type": "nf4", "blocksize": BLOCK, "dtype": "float32", "shape": [rows, columns]}
        stored[key] = torch.zeros(rows * columns // 2, 1, dtype=torch.uint8)
        stored[f"{key}.absmax"] = torch.ones(-(-rows * columns // BLOCK))
        stored[f"{key}.quant_map"] = torch.linspace(-1, 1, 16)
        words = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
        nbytes = sum(stored[name].numel() * stored[name].element_size() for name in stored if name.startswith(key))
        stored[f"{key}.quant_state.bitsandbytes__nf4"] = words
        config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    else:
        stored[key] = torch.zeros(rows, columns, dtype=torch.int8)
        stored[key.replace("weight", "SCB")] = torch.ones(rows)
        nbytes = rows * columns + 4 * rows
        config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    found = rows_of(folder, dequantize=True)
    (entry,) = (entry for entry in found.entries if entry.key == key)
    assert (entry.dtype, entry.shape, entry.nbytes) == ({4: "nf4", 8: "int8"}[bits], (rows, columns), nbytes)


def test_what_is_printed_is_every_row(tmp_path):
    found = rows_of(save(VARIANTS["gpt2"], tmp_path))
    text = str(found)
    for row in found.rows():
        assert any(all(cell in line for cell in row) for line in text.splitlines())
    assert "zero-filled" in text and len(text.splitlines()) == len(found.rows()) + 4
