"""LoRA adapters on packed models: numbers with the adapter added, as peft's own forward pass has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.quantized_models import load_packed, packing_library, save_unpacked
from transformer_lens import HookedTransformer
from transformer_lens.loading import QuantizedTensorError

peft = pytest.importorskip("peft", reason="peft is not installed")
pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.filterwarnings("ignore::UserWarning")]
TARGETS = {
    "gpt2": ["c_attn", "c_fc"],
    "gpt-neox": ["query_key_value", "dense"],
    "llama-gqa": ["q_proj", "v_proj", "down_proj"],
    "phi3-gqa": ["qkv_proj", "gate_up_proj"],
}
TOKENS = torch.tensor([[1, 5, 9, 70, 3, 11, 40], [2, 2, 60, 8, 101, 7, 33]])


@pytest.fixture(scope="module", autouse=True)
def _library() -> None:
    packing_library()


def adapted(family: str, way: str, folder: Path, **settings: Any) -> Any:
    """Returns a live PeftModel over a packed base, its adapter of random numbers; the base and it are saved, too."""
    packed = load_packed(save_unpacked(family, folder / "float"), way)
    packed.save_pretrained(folder / "packed")
    config = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=TARGETS[family], task_type="CAUSAL_LM", fan_in_fan_out=family == "gpt2",
        **settings,
    )  # fmt: skip
    model = peft.get_peft_model(packed, config).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_A" in key or "lora_B" in key:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.save_pretrained(folder / "adapter")
    return model


@pytest.mark.parametrize("way", ["nf4", "nf4-nested"])
@pytest.mark.parametrize("family", TARGETS)
def test_adapters_on_a_packed_base_equal_pefts_forward_pass(family: str, way: str, tmp_path: Path) -> None:
    live = adapted(family, way, tmp_path)
    load = HookedTransformer.from_pretrained_no_processing
    with torch.no_grad():
        expected = live(TOKENS).logits
        with live.disable_adapter():
            without = live(TOKENS).logits
        assert (expected - without).abs().max() > 0.01 * expected.abs().max()
        models = {
            "live": load(hf_model=live, device="cpu", dtype="auto"),
            "files": load(tmp_path / "packed", adapter=tmp_path / "adapter", device="cpu", dtype="auto"),
        }
        for name, model in models.items():
            assert (model(TOKENS) - expected).abs().max() <= 1e-3 * expected.abs().max(), name
            # What the adapter does not touch stays packed.
            assert model.load_report.packed and model.load_report.dequantized, name
            assert set(model.load_report.dequantized.values()) == {"an adapter was merged into it"}, name
        assert torch.equal(live(TOKENS).logits, expected)


@pytest.mark.parametrize("family", ["gpt2", "llama-gqa"])
def test_in_8_bits_the_numbers_are_those_of_the_base_and_the_adapter(family: str, tmp_path: Path) -> None:
    live = adapted(family, "int8", tmp_path)
    plain = HookedTransformer.from_pretrained_no_processing(
        tmp_path / "packed", device="cpu", dtype="auto", dequantize=True
    )
    model = HookedTransformer.from_pretrained_no_processing(hf_model=live, device="cpu", dtype="auto")
    files = HookedTransformer.from_pretrained_no_processing(
        tmp_path / "packed", adapter=tmp_path / "adapter", device="cpu", dtype="auto"
    )
    layer = live.base_model.model.get_submodule(
        "transformer.h.0.mlp.c_fc" if family == "gpt2" else "model.layers.0.mlp.down_proj"
    )
    name = "W_in" if family == "gpt2" else "W_out"
    delta = layer.get_delta_weight("default")
    # peft gives the change of a Conv1D in the order of its file.
    mine = getattr(plain.blocks[0].mlp, name)
    delta = delta if delta.shape == mine.shape else delta.t()
    for found in (model, files):
        assert torch.allclose(getattr(found.blocks[0].mlp, name), mine + delta, atol=1e-5)
    with torch.no_grad():
        # Their products pack the activations, too.
        expected = live(TOKENS).logits
        assert (model(TOKENS) - expected).abs().max() <= 0.1 * expected.abs().max()


@pytest.mark.parametrize("what", ["merged", "dora"])
def test_what_cannot_be_added_is_refused(what: str, tmp_path: Path) -> None:
    live = adapted("llama-gqa", "nf4", tmp_path, use_dora=what == "dora")
    if what == "merged":
        live.merge_adapter()
    with pytest.raises(QuantizedTensorError, match="DoRA" if what == "dora" else "merged into it"):
        HookedTransformer.from_pretrained(hf_model=live, device="cpu")
