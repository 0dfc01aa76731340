"""LoRA adapters against what peft computes with them live: in every path, in every state, and what is refused."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny_models import VARIANTS, make_model, save
from transformer_lens import HookedTransformer, loading
from transformer_lens.loading import LoadingError

peft = pytest.importorskip("peft", reason="peft is not installed")
# peft calls what transformers has renamed, and warns of what it does by itself.
pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.filterwarnings("ignore::UserWarning")]

TOKENS = torch.arange(18).reshape(2, 9)
LAST = {"llama-gqa": "q_proj", "llama-tied": "q_proj", "gpt2": "c_attn"}
TRAINED = ("lora_", "modules_to_save", "trainable_tokens_delta")


def fill(model: Any, seed: int = 3) -> Any:
    """Gives what an adapter has trained random numbers."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(word in name for word in TRAINED) or parameter.requires_grad:
                around = 1 if "magnitude" in name or name.endswith("norm.weight") else 0
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.2 + around)
    return model.eval()


def adapted(name: str, folder: Path, dtype: torch.dtype = torch.float64, **settings: Any) -> Any:
    """Saves a base and an adapter, and returns peft's live model of both."""
    resize = settings.pop("resize", None)
    save(VARIANTS[name], folder / "base", dtype)
    base = make_model(VARIANTS[name], dtype)
    if resize is not None:
        base.resize_token_embeddings(resize, mean_resizing=False)
    settings = {"r": 4, "lora_alpha": 6, "target_modules": [LAST[name]], "task_type": "CAUSAL_LM", **settings}
    config = peft.LoraConfig(fan_in_fan_out=name == "gpt2", **settings)
    model = fill(peft.get_peft_model(base, config, autocast_adapter_dtype=False))
    model.save_pretrained(folder / "adapter")
    return model


def ours(*args: Any, **settings: Any) -> HookedTransformer:
    return HookedTransformer.from_pretrained(*args, **{"device": "cpu", "dtype": "float64", **settings})


@torch.no_grad()
def log_probs(model: Any) -> torch.Tensor:
    out = model(TOKENS)
    return (out if isinstance(out, torch.Tensor) else out.logits).double().log_softmax(-1)


def off(model: Any, expected: torch.Tensor) -> float:
    return float((log_probs(model) - expected).abs().max())


# --- the numbers are those that peft computes

SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "pattern": ("llama-gqa", {"rank_pattern": {r".*\.1\..*": 7}, "alpha_pattern": {r"^model.layers.0.*": 5}}),
    "embedding": ("llama-gqa", {"target_modules": ["q_proj", "embed_tokens"]}),
    "embedding-and-head": ("llama-gqa", {"target_modules": ["embed_tokens", "lm_head"]}),
    "embedding-tied": ("llama-tied", {"target_modules": ["embed_tokens"]}),
    "head-tied": ("llama-tied", {"target_modules": ["lm_head"]}),
    "embedding-gpt2": ("gpt2", {"target_modules": ["wte", "wpe"]}),
    "embedding-dora": ("llama-gqa", {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True}),
    "conv1d-dora": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "use_dora": True, "use_rslora": True}),
    "biases": ("gpt2", {"bias": "all"}),
    "saved-norms": ("llama-gqa", {"modules_to_save": ["norm"]}),
    "saved-ends": ("llama-gqa", {"modules_to_save": ["embed_tokens", "lm_head"]}),
    "saved-head-tied": ("llama-tied", {"modules_to_save": ["lm_head"]}),
    "saved-embedding-tied": ("llama-tied", {"modules_to_save": ["embed_tokens"]}),
    "saved-mlp": ("gpt2", {"modules_to_save": ["mlp"]}),
    "larger-vocabulary": ("llama-gqa", {"modules_to_save": ["embed_tokens", "lm_head"], "resize": 120}),
    "smaller-vocabulary": ("llama-gqa", {"modules_to_save": ["embed_tokens", "lm_head"], "resize": 101}),
    "some-layers": ("llama-gqa", {"layers_to_transform": [1], "layers_pattern": "layers"}),
}
# What releases of peft before 0.15 do not have.
if "trainable_token_indices" in peft.LoraConfig.__dataclass_fields__:
    SETTINGS |= {
        "tokens": ("llama-gqa", {"trainable_token_indices": [3, 9]}),
        "tokens-tied": ("llama-tied", {"trainable_token_indices": [3, 9]}),
        "tokens-by-name": ("gpt2", {"trainable_token_indices": {"wte": [0, 7, 3]}}),
    }
if "ensure_weight_tying" in peft.LoraConfig.__dataclass_fields__:
    ties = {"ensure_weight_tying": True}
    SETTINGS |= {
        "tying-embedding": ("llama-tied", {"target_modules": ["embed_tokens"], **ties}),
        "tying-saved": ("llama-tied", {"modules_to_save": ["embed_tokens"], "resize": 120, **ties}),
    }
if "lora_bias" in peft.LoraConfig.__dataclass_fields__:
    SETTINGS["bias-of-factors"] = ("gpt2", {"lora_bias": True})


@pytest.mark.parametrize("case", SETTINGS)
def test_files_and_live_equal_peft(case, tmp_path):
    name, settings = SETTINGS[case]
    live = adapted(name, tmp_path, **settings)
    before = {key: value.clone() for key, value in live.state_dict().items()}
    expected = log_probs(live)
    for model in (ours(tmp_path / "base", adapter=tmp_path / "adapter"), ours(hf_model=live)):
        assert off(model, expected) < 1e-5
        assert model.load_report.merged and str(model.load_report).count("merged: ")
    assert all(torch.equal(value, before[key]) for key, value in live.state_dict().items())
    assert off(live, expected) == 0


@pytest.mark.parametrize("name", ["llama-gqa", "llama-tied", "gpt2"])
@pytest.mark.parametrize("use_dora", [False, True])
def test_a_merge_rounds_once(name, use_dora, tmp_path):
    """On a bfloat16 base the sum is as exact as the dtype that was asked for, and not as that of the file."""
    adapted(name, tmp_path, torch.bfloat16, use_dora=use_dora, target_modules=[LAST[name], "lm_head"])
    kept = type(make_model(VARIANTS[name])).from_pretrained(tmp_path / "base").double()
    live = peft.PeftModel.from_pretrained(kept, tmp_path / "adapter", autocast_adapter_dtype=False).double().eval()
    expected = log_probs(live)
    exact = ours(tmp_path / "base", adapter=tmp_path / "adapter")
    # Rotary tables are in float32.
    assert off(exact, expected) < 1e-5
    assert off(ours(tmp_path / "base", adapter=tmp_path / "adapter", dtype="float32"), expected) < 1e-4
    assert off(ours(hf_model=live, dtype="float32"), expected) < 1e-4
    half = HookedTransformer.from_pretrained_no_processing(
        tmp_path / "base", adapter=tmp_path / "adapter", device="cpu", dtype="auto"
    )
    raw = HookedTransformer.from_pretrained_no_processing(
        tmp_path / "base", adapter=tmp_path / "adapter", device="cpu", dtype="float32"
    )
    assert half.cfg.dtype == torch.bfloat16 and half.load_report.source_dtype == "bfloat16"
    for key, value in half.state_dict().items():
        assert torch.equal(value, raw.state_dict()[key].to(value.dtype)), key


# --- it is never ignored


def test_it_is_merged_into_a_live_model(tmp_path):
    live = adapted("llama-gqa", tmp_path)
    base = make_model(VARIANTS["llama-gqa"], torch.float64)
    model = ours(hf_model=base, adapter=tmp_path / "adapter")
    assert off(model, log_probs(live)) < 1e-5 and model.load_report.adapters


def test_it_is_merged_into_a_gguf_file(tmp_path):
    pytest.importorskip("gguf")
    from tests.unit.loading.test_gguf_reader import as_gguf

    live = adapted("llama-gqa", tmp_path, target_modules=["q_proj", "k_proj", "down_proj", "embed_tokens", "lm_head"])
    file = as_gguf(make_model(VARIANTS["llama-gqa"]), tmp_path / "base.gguf")
    model = ours(file, adapter=tmp_path / "adapter")
    assert off(model, log_probs(live)) < 1e-4 and model.load_report.adapters


def test_it_is_merged_into_what_transformers_dequantizes(tmp_path, monkeypatch):
    live = adapted("llama-gqa", tmp_path)
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    packed = {**config, "quantization_config": {"quant_method": "compressed-tensors"}}
    (tmp_path / "base" / "config.json").write_text(json.dumps(packed))
    undone = lambda source, method: make_model(VARIANTS["llama-gqa"], torch.float64)
    monkeypatch.setattr("transformer_lens.loading.open_request.load_dequantized", undone)
    model = ours(tmp_path / "base", adapter=tmp_path / "adapter", dequantize=True)
    assert off(model, log_probs(live)) < 1e-5 and model.load_report.adapters


def test_first_layers_plan_and_verify_take_it(tmp_path):
    live = adapted("llama-gqa", tmp_path, torch.float32)
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    whole, first = ours(base, adapter=adapter), ours(base, adapter=adapter, first_n_layers=1)
    assert torch.equal(first.blocks[0].attn.W_Q, whole.blocks[0].attn.W_Q)
    assert HookedTransformer.plan_load(base, adapter=adapter, device="cpu").report.merged == whole.load_report.merged
    model = ours(base, adapter=adapter, dtype="float32")
    for found in (
        loading.verify(model, show=False),
        loading.verify(model, hf_model=live, show=False),
        loading.verify(base, adapter=adapter, show=False),
        loading.verify(first, show=False),
    ):
        assert found.holds and str(adapter) in found.label, found
    plain = loading.verify(ours(base, dtype="float32"), hf_model=live, show=False)
    assert plain.first_disagreement == "blocks.0"


def test_a_name_that_is_an_adapter(tmp_path):
    live = adapted("llama-gqa", tmp_path)
    path = tmp_path / "adapter" / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "base_model_name_or_path": str(tmp_path / "base")}))
    assert off(ours(tmp_path / "adapter"), log_probs(live)) < 1e-5
    # A base's config beside it, as some tools write it, makes no model of it.
    (tmp_path / "adapter" / "config.json").write_text((tmp_path / "base" / "config.json").read_text())
    assert off(ours(tmp_path / "adapter"), log_probs(live)) < 1e-5
    with pytest.raises(LoadingError, match="one is merged at a time"):
        ours(tmp_path / "adapter", adapter=tmp_path / "adapter")
    with pytest.raises(LoadingError, match="an adapter itself"):
        path.write_text(json.dumps({**config, "base_model_name_or_path": str(tmp_path / "adapter")}))
        ours(tmp_path / "adapter")


def test_an_adapter_beside_a_whole_model_is_spoken_of(tmp_path):
    adapted("llama-gqa", tmp_path)
    for file in (tmp_path / "adapter").iterdir():
        (tmp_path / "base" / file.name).write_bytes(file.read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="the adapter is not merged"):
            ours(tmp_path / "base")


@pytest.mark.parametrize("given", ["hf_model", "folder", "plan"])
@pytest.mark.parametrize("adapter", ["./nothing", "/nothing/at/all", "base", ""])
def test_what_is_no_adapter_is_refused(given, adapter, tmp_path):
    folder = save(VARIANTS["llama-gqa"], tmp_path / "base")
    adapter = str(folder) if adapter == "base" else adapter
    with pytest.raises(LoadingError):
        if given == "hf_model":
            ours(hf_model=make_model(VARIANTS["llama-gqa"]), adapter=adapter)
        elif given == "folder":
            ours(folder, adapter=adapter)
        else:
            HookedTransformer.plan_load(folder, adapter=adapter)


# --- odd folders

Tensors = dict[str, torch.Tensor]
FACTORS = ("lora_A", "lora_B")
CHANGES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "transposed": lambda tensor: tensor.t().contiguous(),
    "one row": lambda tensor: tensor[:1].clone(),
    "one column": lambda tensor: tensor[:, :1].clone(),
    "one number": lambda tensor: tensor[:1, :1].clone(),
    "flat": lambda tensor: tensor.reshape(-1),
    "one more axis": lambda tensor: tensor[None].clone(),
    "a row less": lambda tensor: tensor[:-1].clone(),
    "a row more": lambda tensor: torch.cat([tensor, tensor[:1]]),
    "twice": lambda tensor: torch.cat([tensor, tensor], 1),
    "empty": lambda tensor: tensor[:0].clone(),
    "integers": lambda tensor: tensor.to(torch.int32),
    "bool": lambda tensor: tensor > 0,
    "float8": lambda tensor: tensor.to(torch.float8_e4m3fn),
}
RENAMES: dict[str, Callable[[str], str | None]] = {
    "gone": lambda name: None,
    "another layer": lambda name: name.replace(".1.", ".7."),
    "another module": lambda name: name.replace("q_proj", "x_proj").replace("c_attn", "x_attn"),
    "a module that is not named": lambda name: name.replace("q_proj", "k_proj").replace("c_attn", "c_fc"),
    "another part": lambda name: name.replace("lora_", "lora_embedding_"),
    "a bias": lambda name: name.replace(".weight", ".bias"),
    "a magnitude": lambda name: name.replace("lora_A", "lora_magnitude_vector").replace(
        "lora_B", "lora_magnitude_vector"
    ),
    "no part": lambda name: name.replace(".weight", ".scales"),
}


@pytest.fixture(scope="module", params=["llama-gqa", "gpt2"])
def folders(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    adapted(request.param, folder)
    return folder


def refused(folders: Path, folder: Path, tensors: Tensors, **config: Any) -> None:
    """Asserts that an adapter with other tensors and settings is refused by one of our errors."""
    said = json.loads((folders / "adapter" / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**said, **config}))
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(LoadingError):
        ours(folders / "base", adapter=folder)


def tensors_of(folders: Path) -> Tensors:
    return load_file(folders / "adapter" / "adapter_model.safetensors")


@pytest.mark.parametrize("part", FACTORS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_factor_of_another_shape_or_kind_is_refused(change, part, folders, tmp_path):
    if change == "float8" and not hasattr(torch, "float8_e4m3fn"):
        pytest.skip("this torch has no float8")
    tensors = tensors_of(folders)
    name = next(name for name in tensors if part in name and ".1." in name)
    refused(folders, tmp_path, {**tensors, name: CHANGES[change](tensors[name])})


@pytest.mark.parametrize("part", FACTORS)
@pytest.mark.parametrize("change", RENAMES)
def test_a_factor_of_another_name_is_refused(change, part, folders, tmp_path):
    tensors = tensors_of(folders)
    name = next(name for name in tensors if part in name and ".1." in name)
    value, other = tensors.pop(name), RENAMES[change](name)
    refused(folders, tmp_path, tensors if other is None else {**tensors, other: value})


@pytest.mark.parametrize("case", ["empty", "a stranger", "a layer less", "twice", "whole", "magnitudes", "bias"])
def test_tensors_that_the_config_does_not_speak_of_are_refused(case, folders, tmp_path):
    tensors = tensors_of(folders)
    name = next(name for name in tensors if "lora_A" in name and ".1." in name)
    module = name.removesuffix(".lora_A.weight")
    base = load_file(folders / "base" / "model.safetensors")
    whole = next(key for key in base if key.endswith(("norm.weight", "ln_f.weight")))
    more = {
        "a stranger": {"x": torch.ones(1)},
        "twice": {name.removeprefix("base_model.model."): tensors[name].clone()},
        "whole": {f"base_model.model.{whole}": base[whole]},
        "magnitudes": {f"{module}.lora_magnitude_vector": torch.ones(tensors[f"{module}.lora_B.weight"].shape[0])},
        "bias": {f"{module}.bias": torch.ones(tensors[f"{module}.lora_B.weight"].shape[0])},
    }
    if case == "empty":
        tensors = {}
    elif case == "a layer less":
        tensors = {key: tensor for key, tensor in tensors.items() if ".1." not in key}
    refused(folders, tmp_path, {**tensors, **more.get(case, {})})


@pytest.mark.parametrize(
    "config",
    [
        {"r": 8}, {"r": True}, {"r": "4"}, {"lora_alpha": "6"}, {"lora_alpha": 1e39}, {"use_dora": True},
        {"lora_bias": True}, {"use_qalora": True}, {"alora_invocation_tokens": [1]}, {"layer_replication": [[0, 2]]},
        {"target_parameters": ["q_proj.weight"]}, {"alpha_pattern": {"(a+)+$": "6"}}, {"rank_pattern": {".*": 5}},
        {"target_modules": ["nothing"]}, {"target_modules": r"(.*)*(.*)*(.*)*x"}, {"modules_to_save": ["lm_head"]},
        {"trainable_token_indices": [1]}, {"peft_type": "IA3"}, {"peft_type": None}, {"init_lora_weights": "pissa"},
        {"modules_to_save": ["mlp"]}, {"layers_to_transform": [0]}, {"unheard_of": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_config_that_does_not_fit_is_refused(config, folders, tmp_path):
    refused(folders, tmp_path, tensors_of(folders), **config)


# --- live states


def two(active: list[str], **settings: Any) -> Any:
    model = peft.get_peft_model(
        make_model(VARIANTS["llama-gqa"], torch.float64),
        peft.LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj"], **settings),
        autocast_adapter_dtype=False,
    )
    model.add_adapter("b", peft.LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "up_proj"]))
    fill(model.double())
    model.base_model.set_adapter(active)
    return model


def merged() -> Any:
    model = two(["default"])
    model.merge_adapter()
    return model


def disabled() -> Any:
    model = two(["default", "b"])
    model.base_model.disable_adapter_layers()
    return model


def scaled() -> Any:
    model = two(["default", "b"])
    for module in model.modules():
        if type(module).__name__ == "Linear" and type(module).__module__.startswith("peft"):
            module.set_scale("b", 0.3)
    return model


def disabled_whole(**settings: Any) -> Any:
    model = two(["default"], **settings)
    model.base_model.disable_adapter_layers()
    return model


STATES: dict[str, Callable[[], Any]] = {
    "both": lambda: two(["default", "b"]),
    "the second": lambda: two(["b"]),
    "the second, the first saves modules": lambda: two(["b"], modules_to_save=["lm_head", "norm"]),
    "merged": merged,
    "disabled": disabled,
    "disabled with saved modules": lambda: disabled_whole(modules_to_save=["lm_head", "norm"]),
    "scaled": scaled,
    "unloaded": lambda: two(["default"]).unload(),
    "merged and unloaded": lambda: two(["default"]).merge_and_unload(),
    "without its wrapper": lambda: two(["default", "b"]).get_base_model(),
}


@pytest.mark.parametrize("state", STATES)
def test_a_live_model_computes_what_it_computes(state):
    model = STATES[state]()
    expected = log_probs(model)
    assert off(ours(hf_model=model), expected) < 1e-5
    assert off(model, expected) == 0


REFUSED: dict[str, Callable[[], Any]] = {
    "IA3": lambda: peft.IA3Config(
        target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"
    ),
    "LoHa": lambda: peft.LoHaConfig(target_modules=["q_proj"], r=3, task_type="CAUSAL_LM"),
    "VeRA": lambda: peft.VeraConfig(target_modules=["q_proj"], r=3, task_type="CAUSAL_LM"),
    "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
    "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("wrapped", [True, False])
def test_what_weights_cannot_hold_is_refused_by_name(kind, wrapped):
    model = peft.get_peft_model(make_model(VARIANTS["llama-gqa"]), REFUSED[kind]())
    if not wrapped and kind in ("prompt", "prefix"):
        base = model.get_base_model()
        assert off(ours(hf_model=base), log_probs(base)) < 1e-4
        return
    with pytest.raises(LoadingError, match=r"type [A-Z_0-9]+|is a peft\."):
        ours(hf_model=model if wrapped else model.get_base_model())


def test_dora_beside_another_and_disabled_after_merging_are_refused():
    with pytest.raises(LoadingError, match="DoRA beside another"):
        ours(hf_model=two(["default", "b"], use_dora=True))
    model = merged()
    model.base_model.disable_adapter_layers()
    with pytest.raises(LoadingError, match="unmerge_adapter"):
        ours(hf_model=model)
