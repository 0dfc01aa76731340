"""Processing of models that are packed on load: in 4 bits beside the bytes, so that it costs no accuracy."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.quantized import KINDS, TEXT
from tests.integration.quantized_models import FAMILIES, WAYS, config, load_packed, packing_library, save_unpacked
from transformer_lens import HookedTransformer
from transformer_lens.loading import CorruptCheckpointError

TOKENS = torch.tensor([[1, 5, 9, 70, 3, 11, 40], [2, 2, 60, 8, 101, 7, 33]])
FOUR_BITS = [way for way in WAYS if WAYS[way].get("load_in_4bit")]


@pytest.fixture(scope="module", autouse=True)
def _library() -> Any:
    return packing_library()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: save_unpacked(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


def folded(folder: Path, way: str, **options: Any) -> HookedTransformer:
    return HookedTransformer.from_pretrained(folder, quantization_config=config(way), device="cpu", **options)


def same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.data.view(torch.uint8), other.data.view(torch.uint8))


@pytest.mark.parametrize("way", FOUR_BITS)
@pytest.mark.parametrize("family", FAMILIES)
def test_processing_does_not_change_what_is_packed(family: str, way: str, folders: Any, tmp_path: Path) -> None:
    load_packed(folders[family], way).save_pretrained(tmp_path)
    # What processing means, done to the numbers that the packed matrices hold.
    meant = HookedTransformer.from_pretrained(tmp_path, device="cpu", dequantize=True)
    plain = HookedTransformer.from_pretrained_no_processing(
        folders[family], quantization_config=config(way), device="cpu"
    )
    model = folded(folders[family], way)
    assert model.load_report.steps == meant.load_report.steps and model.cfg.normalization_type in ("LNPre", "RMSPre")
    for (name, one), other in zip(plain.blocks.named_modules(), model.blocks.modules()):
        for leaf in vars(one).get("packing", {}):
            mine, theirs = other._parameters[leaf], one._parameters[leaf]
            assert type(mine) is type(theirs) and same_bytes(mine, theirs), f"{name}.{leaf}"
            assert torch.equal(mine.quant_state.absmax, theirs.quant_state.absmax), f"{name}.{leaf}"
    for name in ("W_Q", "W_K", "W_V", "W_O", "W_in", "W_out", "W_U", *(["W_gate"] if model.cfg.gated_mlp else [])):
        one, other = getattr(model, name), getattr(meant, name)
        assert (one - other).abs().max() <= 1e-5 * other.abs().max(), name
    # Biases take in what the numbers of the file, not the packed ones, make of the bias of a norm.
    with torch.no_grad():
        biases = {
            name: value for name, value in model.state_dict().items() if name.rpartition(".")[2].strip("_")[:2] == "b_"
        }
        meant.load_state_dict(biases, strict=False)
        expected = meant(TOKENS)
        assert (model(TOKENS) - expected).abs().max() <= 1e-4 * expected.abs().max()
    told = " ".join(step for step, _ in model.load_report.skipped)
    assert "processing of the packed bytes of blocks.{0…1}.attn.W_Q" in told


@pytest.mark.parametrize("family", ["gpt2", "llama-gqa"])
def test_in_8_bits_what_is_packed_is_folded(family: str, folders: Any) -> None:
    model = folded(folders[family], "int8")
    assert model.blocks[0].attn.packing["W_Q"].beside is None
    assert not any("packed bytes" in step for step, _ in model.load_report.skipped)
    float_model = HookedTransformer.from_pretrained(folders[family], device="cpu")
    assert (model.W_Q - float_model.W_Q).norm() <= 0.02 * float_model.W_Q.norm()


@pytest.mark.parametrize("family", ["gpt2", "llama-gqa"])
def test_what_is_beside_survives_what_is_done_to_models(family: str, folders: Any, tmp_path: Path) -> None:
    model = folded(folders[family], "nf4-nested")
    plain = folded(folders[family], "nf4-nested", fold_ln=False, center_writing_weights=False)
    centred = family == "gpt2"
    beside = model.blocks[0].attn.packing["W_Q"].beside
    assert beside.scales.shape == (128,) and beside.over_inputs == centred and not beside.over_outputs
    assert (model.blocks[0].mlp.packing["W_out"].beside is not None) == centred
    assert plain.blocks[0].attn.packing["W_Q"].beside is None
    with torch.no_grad():
        expected = model(TOKENS)
        same = {"deepcopy": copy.deepcopy(model), "pickle": pickle.loads(pickle.dumps(model))}
        torch.save(model, tmp_path / "model.pt")
        same["torch.save"] = torch.load(tmp_path / "model.pt", weights_only=False)
        # A model of other numbers, so that whatever is not loaded shows.
        other = folded(folders[family], "fp4")
        other.load_state_dict(model.state_dict())
        same["state_dict"] = other
        floats = HookedTransformer.from_pretrained(folders[family], device="cpu")
        floats.load_state_dict(model.state_dict())
        same["state_dict into numbers"] = floats
        for name, again in same.items():
            assert torch.equal(again(TOKENS), expected), name
            assert torch.equal(again.W_Q, model.W_Q), name
        model.to(torch.bfloat16, print_details=False).to(torch.float32, print_details=False)
        assert model.blocks[0].attn.packing["W_Q"].beside.scales.dtype == torch.float32
        assert (model(TOKENS) - expected).abs().max() <= 0.05 * expected.abs().max()


def test_gradients_and_split_inputs_see_what_is_beside(folders: Any) -> None:
    model = folded(folders["gpt2"], "nf4")
    numbers = HookedTransformer(dataclasses.replace(model.cfg, load_in_4bit=False))
    state = {name: value for name, value in model.state_dict().items() if name in dict(numbers.named_parameters())}
    for prefix, module in model.named_modules():
        for leaf in vars(module).get("packing", {}):
            state[f"{prefix}.{leaf}"] = module.numbers(leaf)
    numbers.load_state_dict(state, strict=False)

    def gradient(of: HookedTransformer) -> torch.Tensor:
        kept = []

        def keep(value: torch.Tensor, hook: Any) -> torch.Tensor:
            kept.append(value.detach().requires_grad_())
            return kept[0]

        with of.hooks(fwd_hooks=[("hook_embed", keep)]):
            of(TOKENS)[0, -1, 3].backward()
        return kept[0].grad

    expected = gradient(numbers)
    assert (gradient(model) - expected).abs().max() <= 1e-4 * expected.abs().max()
    with torch.no_grad():
        logits = model(TOKENS)
        model.set_use_split_qkv_input(True)
        model.set_use_attn_result(True)
        assert (model(TOKENS) - logits).abs().max() <= 1e-4 * logits.abs().max()


def test_a_state_dict_of_another_size_is_refused(folders: Any) -> None:
    model = folded(folders["llama"], "nf4")
    state = model.state_dict()
    name = "blocks.0.attn.W_Q.column_scales"
    with pytest.raises(CorruptCheckpointError, match="blocks.0.attn.W_Q has 128 columns"):
        model.load_state_dict({**state, name: state[name][:-1]})
    del state["blocks.0.attn.W_Q.centred"]
    with pytest.raises(CorruptCheckpointError, match="column_scales"):
        model.load_state_dict(state)


@pytest.mark.parametrize("kind", KINDS)
def test_processing_brings_log_probs_no_farther_from_the_float_models(kind: str, smollm2: Path) -> None:
    exact = HookedTransformer.from_pretrained_no_processing(smollm2, device="cpu")
    tokens = exact.to_tokens(TEXT)
    found = []
    with torch.no_grad():
        expected = exact(tokens).log_softmax(-1)
        for load in (HookedTransformer.from_pretrained_no_processing, HookedTransformer.from_pretrained):
            model = load(smollm2, device="cpu", quantization_config=KINDS[kind])
            log_probs = model(tokens).log_softmax(-1)
            found.append(float((expected.exp() * (expected - log_probs)).sum(-1).mean()))
    plain, processed = found
    assert model.cfg.normalization_type == "RMSPre" and "fold_ln" in model.load_report.steps
    assert 0 < processed <= 1.02 * plain
