"""What holds for weights of every source: they are floats, and of no more layers than the config says."""

import json
import struct

import gguf
import pytest
import torch
from safetensors.torch import save_file

from tests.tiny_models import VARIANTS, make_model, save
from tests.unit.loading.test_gguf_reader import as_gguf
from transformer_lens import HookedTransformer
from transformer_lens.loading import QuantizedTensorError, UnexpectedTensorError

KEY, OURS = "transformer.h.1.mlp.c_fc.weight", "blocks.1.mlp.W_in"
NO_FLOATS = [torch.int8, torch.int32, torch.int64, torch.uint8, torch.bool] + [
    vars(torch)[name] for name in ("float8_e4m3fn",) if name in vars(torch)
]


def from_safetensors(folder, state):
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def from_shards(folder, state):
    (folder / "model.safetensors").unlink()
    save_file(state, folder / "one.safetensors")
    index = {"weight_map": dict.fromkeys(state, "one.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def from_bin(folder, state):
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    return folder


FOLDERS = {"safetensors": from_safetensors, "shards": from_shards, "bin": from_bin}


def state_of(name="gpt2"):
    state = {key: tensor.clone() for key, tensor in make_model(VARIANTS[name]).state_dict().items()}
    state.pop("lm_head.weight")
    return state


def refused(load):
    with pytest.raises(QuantizedTensorError, match=r"(?s)(h|blocks|blk)\.1\..*(int|uint|bool|float8)|I\d+"):
        load()


@pytest.mark.parametrize("dtype", NO_FLOATS, ids=str)
@pytest.mark.parametrize("source", FOLDERS)
@pytest.mark.parametrize("arguments", [{}, {"dtype": "auto", "fold_ln": False, "center_unembed": False}], ids=str)
def test_a_folder(tmp_path, source, dtype, arguments):
    if source == "bin" and "float8" in str(dtype):
        pytest.skip("torch writes no storage of float8 into a .bin file")
    folder, state = save(VARIANTS["gpt2"], tmp_path), state_of()
    state[KEY] = (state[KEY] * 100).to(dtype)
    FOLDERS[source](folder, state)
    refused(lambda: HookedTransformer.from_pretrained(folder, device="cpu", **arguments))
    refused(lambda: HookedTransformer.plan_load(folder, device="cpu", **arguments))


@pytest.mark.parametrize("dtype", NO_FLOATS, ids=str)
def test_a_live_model(dtype):
    model = make_model(VARIANTS["gpt2"])
    weight = model.transformer.h[1].mlp.c_fc
    weight.weight = torch.nn.Parameter((weight.weight.detach() * 100).to(dtype), requires_grad=False)
    refused(lambda: HookedTransformer.from_pretrained("gpt2", hf_model=model, device="cpu"))
    assert weight.weight.dtype == dtype


@pytest.mark.parametrize("dtype", NO_FLOATS, ids=str)
def test_weights_of_ones_own(tmp_path, dtype):
    model = HookedTransformer.from_pretrained(save(VARIANTS["gpt2"], tmp_path / "m"), device="cpu")
    state = {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()}
    state[OURS] = (state[OURS] * 100).to(dtype)
    refused(lambda: HookedTransformer.from_state_dict(state, model.cfg))
    save_file(state, tmp_path / "own.safetensors")
    refused(lambda: HookedTransformer.from_state_dict(tmp_path / "own.safetensors", model.cfg))
    if "float8" not in str(dtype):
        torch.save({"model": state}, tmp_path / "own.pt")
        refused(lambda: HookedTransformer.from_state_dict(tmp_path / "own.pt", model.cfg))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    refused(lambda: model.load_and_process_state_dict(state))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("kind", ["I8", "I16", "I32", "I64"])
def test_a_gguf_file(tmp_path, kind):
    path = as_gguf(make_model(VARIANTS["gpt2"]), tmp_path / "m.gguf")
    data, key = path.read_bytes(), b"blk.1.ffn_up.bias"
    at = data.index(key) + len(key)
    axes = struct.unpack_from("<I", data, at)[0]
    place = at + 4 + 8 * axes
    assert axes == 1 and struct.unpack_from("<I", data, place) == (0,)
    number = int(gguf.GGMLQuantizationType[kind])
    path.write_bytes(data[:place] + struct.pack("<I", number) + data[place + 4 :])
    with pytest.raises(QuantizedTensorError, match=kind):
        HookedTransformer.from_pretrained(str(path), device="cpu", tokenizer=None)


# peft calls what transformers has renamed, and older releases look for the config of a model that has no folder.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:Could not find a config file:UserWarning")
def test_the_base_of_an_adapter(tmp_path):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    folder, state = save(VARIANTS["gpt2"], tmp_path / "base"), state_of()
    config = peft.LoraConfig(r=2, target_modules=["c_fc"], task_type="CAUSAL_LM", fan_in_fan_out=True)
    peft.get_peft_model(make_model(VARIANTS["gpt2"]), config).save_pretrained(tmp_path / "adapter")
    state[KEY] = (state[KEY] * 100).to(torch.int32)
    from_safetensors(folder, state)
    refused(lambda: HookedTransformer.from_pretrained(folder, adapter=str(tmp_path / "adapter"), device="cpu"))


@pytest.mark.parametrize("first", [None, 1])
@pytest.mark.parametrize("source", FOLDERS)
def test_more_layers_than_the_config_says(tmp_path, source, first):
    folder, state = save(VARIANTS["gpt2"], tmp_path), state_of()
    layers = VARIANTS["gpt2"].config().n_layer
    more = {key.replace(".h.0.", f".h.{layers}."): tensor for key, tensor in state.items() if ".h.0." in key}
    FOLDERS[source](folder, {**state, **{key: tensor.clone() for key, tensor in more.items()}})
    with pytest.raises(UnexpectedTensorError, match=f"more layers than the {layers} of its config.json"):
        HookedTransformer.from_pretrained(folder, device="cpu", first_n_layers=first)


def test_more_layers_in_a_state_dict(tmp_path):
    model = HookedTransformer.from_pretrained(save(VARIANTS["gpt2"], tmp_path / "m"), device="cpu")
    state = model.state_dict()
    more = {name.replace("blocks.0.", f"blocks.{model.cfg.n_layers}."): tensor for name, tensor in state.items()}
    for load in (model.load_and_process_state_dict, lambda given: HookedTransformer.from_state_dict(given, model.cfg)):
        with pytest.raises(UnexpectedTensorError, match="more layers than"):
            load({**state, **more})
