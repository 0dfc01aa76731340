"""LoRA adapters against peft's own merged model."""

import copy
import hashlib

import pytest
import torch

from tests.tiny_models import VARIANTS, make_model, save
from transformer_lens import HookedTransformer
from transformer_lens.loading import UnexpectedTensorError, UnhandledConfigError
from transformer_lens.loading.loaders import can_assign

# peft calls what transformers has renamed, and older releases look for the config of a model that has no folder.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Could not find a config file:UserWarning"),
]

peft = pytest.importorskip("peft", reason="peft is not installed")

TARGETS = {
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "gpt-neox": ["query_key_value", "dense", "dense_4h_to_h"],
    "llama-gqa": ["q_proj", "v_proj", "down_proj"],
    "llama-tied": ["k_proj", "gate_proj"],
    "qwen2": ["q_proj", "o_proj"],
    "mistral": ["v_proj", "up_proj"],
    "phi3-gqa": ["qkv_proj", "gate_up_proj"],
}
TOKENS = torch.arange(18).reshape(2, 9)


def adapted(name, folder, **settings):
    """Saves a base and an adapter of random weights in float64, and returns the live PeftModel."""
    base = save(VARIANTS[name], folder / "base", torch.float64)
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=TARGETS[name],
        task_type="CAUSAL_LM",
        fan_in_fan_out=name == "gpt2",
        **settings,
    )
    model = peft.get_peft_model(make_model(VARIANTS[name], torch.float64), config, autocast_adapter_dtype=False).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_A" in key or "lora_B" in key:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    model.save_pretrained(folder / "adapter")
    return base, folder / "adapter", model


def expected(model):
    with torch.no_grad():
        return copy.deepcopy(model).merge_and_unload()(TOKENS).logits.log_softmax(-1)


def digest(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"use_dora": True}], ids=["plain", "rslora", "dora"])
@pytest.mark.parametrize("name", sorted(TARGETS))
@torch.no_grad()
def test_adapter_equals_peft(name, settings, tmp_path):
    base, adapter, model = adapted(name, tmp_path, **settings)
    before = digest(base), {key: value.clone() for key, value in model.state_dict().items()}
    want = expected(model)
    for ours in (
        HookedTransformer.from_pretrained_no_processing(base, adapter=adapter, device="cpu", dtype="float64"),
        HookedTransformer.from_pretrained(base, adapter=adapter, device="cpu", dtype="float64"),
        HookedTransformer.from_pretrained_no_processing(hf_model=model, device="cpu", dtype="float64"),
    ):
        assert (ours(TOKENS).log_softmax(-1) - want).abs().max() < 1e-5
    assert digest(base) == before[0]
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[1][key]), key


@torch.no_grad()
def test_adapter_that_names_its_base(tmp_path):
    import json

    base, adapter, model = adapted("llama-gqa", tmp_path)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(base)}))
    ours = HookedTransformer.from_pretrained_no_processing(adapter, device="cpu", dtype="float64")
    assert (ours(TOKENS).log_softmax(-1) - expected(model)).abs().max() < 1e-5


@torch.no_grad()
def test_only_what_is_touched_is_allocated(tmp_path):
    base, adapter, _ = adapted("llama-gqa", tmp_path)
    settings = {"device": "cpu", "dtype": "auto"}
    model = HookedTransformer.from_pretrained_no_processing(base, **settings)
    plain, cfg = model.load_report, model.cfg
    merged = HookedTransformer.from_pretrained_no_processing(base, adapter=adapter, **settings).load_report
    touched = cfg.d_model * (cfg.n_heads + cfg.n_kv_heads) * cfg.d_head + cfg.d_model * cfg.d_mlp
    # A torch that cannot assign allocates all of either, and no more for the adapter.
    more = 8 * touched * cfg.n_layers if can_assign() else 0
    assert merged.bytes_allocated - plain.bytes_allocated == more


def test_adapter_of_another_model_is_refused(tmp_path):
    _, adapter, _ = adapted("llama-gqa", tmp_path / "one")
    base = save(VARIANTS["gpt2"], tmp_path / "two")
    with pytest.raises(UnexpectedTensorError, match="touches modules that the base model does not have"):
        HookedTransformer.from_pretrained(base, adapter=adapter, device="cpu")


def test_other_kinds_of_adapter_are_refused(tmp_path):
    base, adapter, _ = adapted("llama-gqa", tmp_path)
    config = (adapter / "adapter_config.json").read_text()
    (adapter / "adapter_config.json").write_text(config.replace('"LORA"', '"IA3"'))
    with pytest.raises(UnhandledConfigError, match="IA3"):
        HookedTransformer.from_pretrained(base, adapter=adapter, device="cpu")
