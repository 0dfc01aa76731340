"""Packed models: attributes, logits and gradients as transformers has them, from every source, in every family."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fallback import may_fall_back
from tests.integration.quantized_models import (
    FAMILIES,
    WAYS,
    config,
    load_packed,
    packing_library,
    rewrites_weights,
    save_unpacked,
)
from tests.tiny_models import VARIANTS, make_model
from transformer_lens import HookedTransformer
from transformer_lens.loading import QuantizedTensorError
from transformer_lens.loading.loaders import can_assign

TOKENS = torch.tensor([[1, 5, 9, 70, 3, 11, 40], [2, 2, 60, 8, 101, 7, 33]])
FLOATS = {"fold_ln", "center_writing_weights", "fold_value_biases"}


@pytest.fixture(scope="module", autouse=True)
def library() -> Any:
    return packing_library()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: save_unpacked(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


@pytest.fixture(scope="module")
def packed_folders(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    out = {}
    for family, folder in folders.items():
        for way in WAYS:
            out[family, way] = tmp_path_factory.mktemp(f"{family}-{way}")
            load_packed(folder, way).save_pretrained(out[family, way])
    return out


def ours(source: str, family: str, way: str, folders: Any, packed_folders: Any, theirs: Any, **options: Any) -> Any:
    load = HookedTransformer.from_pretrained_no_processing
    if source == "live":
        return load(hf_model=theirs, dtype="auto", device="cpu", **options)
    if source == "directory":
        return load(packed_folders[family, way], dtype="auto", device="cpu", **options)
    return load(folders[family], quantization_config=config(way), device="cpu", **options)


def packed_modules(hf_model: Any) -> dict[str, Any]:
    return {
        name: module
        for name, module in hf_model.named_modules()
        if type(module).__name__ in ("Linear4bit", "Linear8bitLt")
    }


def same_attributes(ours: Any, theirs: Any, module: Any) -> None:
    assert type(ours) is type(theirs)
    assert (
        torch.equal(ours.data.view(torch.uint8), theirs.data.view(torch.uint8)) and ours.data.dtype == theirs.data.dtype
    )
    assert ours.shape == theirs.shape and ours.requires_grad == theirs.requires_grad
    if type(ours).__name__ == "Params4bit":
        for name in ("blocksize", "compress_statistics", "quant_type", "quant_storage", "bnb_quantized"):
            assert vars(ours)[name] == vars(theirs)[name], name
        one, other = ours.quant_state, theirs.quant_state
        assert one is not other
        for name in ("shape", "dtype", "blocksize", "quant_type", "nested"):
            assert vars(one)[name] == vars(other)[name], name
        assert torch.equal(one.absmax, other.absmax) and torch.equal(one.code, other.code)
        if one.nested:
            assert torch.equal(one.offset, other.offset) and torch.equal(one.state2.absmax, other.state2.absmax)
            assert torch.equal(one.state2.code, other.state2.code) and one.state2.dtype == other.state2.dtype
            assert one.state2.blocksize == other.state2.blocksize
    else:
        scales = theirs.SCB if theirs.SCB is not None else module.state.SCB
        assert torch.equal(ours.SCB, scales) and ours.has_fp16_weights == theirs.has_fp16_weights
        assert torch.equal(ours.CB, theirs.data)


@pytest.mark.parametrize("source", ["live", "directory", "on load"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_models_equal_transformers(
    family: str, way: str, source: str, folders: Any, packed_folders: Any
) -> None:
    theirs = load_packed(
        packed_folders[family, way] if source == "directory" else folders[family],
        None if source == "directory" else way,
    )
    model = ours(source, family, way, folders, packed_folders, theirs)
    modules = packed_modules(theirs)
    attn, mlp = model.blocks[0].attn, model.blocks[0].mlp
    grouped = "_" if model.cfg.n_key_value_heads is not None else ""
    whole = {
        "o_proj": ("W_O", attn), "attn.c_proj": ("W_O", attn), "attention.dense": ("W_O", attn),
        "q_proj": ("W_Q", attn),
        "k_proj": (f"{grouped}W_K", attn), ".v_proj": (f"{grouped}W_V", attn), "c_fc": ("W_in", mlp),
        "mlp.c_proj": ("W_out", mlp),
        "down_proj": ("W_out", mlp), ".up_proj": ("W_in", mlp), "gate_proj": ("W_gate", mlp), "h_to_4h": ("W_in", mlp),
        "4h_to_h": ("W_out", mlp),
    }  # fmt: skip
    compared = 0
    for name, module in modules.items():
        found = next((value for end, value in whole.items() if ".0." in name and name.endswith(end)), None)
        if found is not None:
            same_attributes(getattr(found[1], found[0]), module.weight, module)
            compared += 1
    assert compared >= 2
    # Every matrix of a block is packed: fused ones were divided.
    assert set(attn.packing) == {"W_Q", f"{grouped}W_K", f"{grouped}W_V", "W_O"} and len(mlp.packing) >= 2
    assert not model.load_report.dequantized
    with torch.no_grad():
        expected, found = theirs(TOKENS).logits, model(TOKENS)
    assert (found - expected).abs().max() <= 1e-3 * expected.abs().max()


@pytest.mark.parametrize("way", ["nf4-nested", "int8"])
@pytest.mark.parametrize("family", ["gpt2", "gpt-neox", "phi3-gqa"])
def test_fused_rows_are_bit_equal_to_slices_of_the_whole(
    family: str, way: str, folders: Any, packed_folders: Any
) -> None:
    packed = HookedTransformer.from_pretrained_no_processing(packed_folders[family, way], device="cpu")
    plain = HookedTransformer.from_pretrained_no_processing(packed_folders[family, way], device="cpu", dequantize=True)
    for name in ("W_Q", "W_K", "W_V", "W_O", "W_in", "W_out"):
        assert torch.equal(getattr(packed, name), getattr(plain, name)), name


@pytest.mark.parametrize("way", ["nf4", "nf4-nested", "int8"])
def test_hooks_caches_and_what_needs_numbers(way: str, folders: Any, packed_folders: Any) -> None:
    model = HookedTransformer.from_pretrained_no_processing(packed_folders["llama-gqa", way], device="cpu")
    plain = HookedTransformer.from_pretrained_no_processing(
        packed_folders["llama-gqa", way], device="cpu", dequantize=True
    )
    logits, cache = model.run_with_cache(TOKENS)
    expected, other = plain.run_with_cache(TOKENS)
    assert set(cache) == set(other)
    tolerance = 1e-4 if way != "int8" else 0.1
    assert (logits - expected).abs().max() <= tolerance * expected.abs().max()
    assert torch.equal(model.QK.AB, plain.QK.AB) and torch.equal(model.OV.AB, plain.OV.AB)
    assert model.n_params_total == plain.n_params_total
    model.set_use_attn_result(True)
    model.set_use_split_qkv_input(True)
    results = model.run_with_cache(TOKENS)[1]["result", 0]
    plain.set_use_attn_result(True)
    assert (results - plain.run_with_cache(TOKENS)[1]["result", 0]).abs().max() <= tolerance * results.abs().max()
    ablated = model.run_with_hooks(TOKENS, fwd_hooks=[("blocks.0.attn.hook_z", lambda z, hook: z * 0)])
    assert not torch.equal(ablated, logits)


@pytest.mark.parametrize("way", ["nf4", "nf4-nested", "int8"])
def test_gradients_flow_before_and_after_passes_without(way: str, packed_folders: Any) -> None:
    model = HookedTransformer.from_pretrained_no_processing(packed_folders["llama", way], device="cpu")
    plain = HookedTransformer.from_pretrained_no_processing(packed_folders["llama", way], device="cpu", dequantize=True)

    def gradient(of: HookedTransformer) -> torch.Tensor:
        kept = []

        def keep(value: torch.Tensor, hook: Any) -> torch.Tensor:
            leaf = value.detach().requires_grad_()
            kept.append(leaf)
            return leaf

        with of.hooks(fwd_hooks=[("hook_embed", keep)]):
            of(TOKENS)[0, -1, 3].backward()
        return kept[0].grad

    first = gradient(model)
    with torch.no_grad():
        model(TOKENS)
    assert torch.equal(gradient(model), first)
    expected = gradient(plain)
    if way == "int8":
        # Activations are packed in the forward pass, which changes what the gradient is taken at.
        assert torch.cosine_similarity(first.flatten(), expected.flatten(), dim=0) > 0.8
    else:
        assert (first - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("way", ["nf4-nested", "nf4-in-bf16", "int8"])
def test_packed_parameters_survive_what_is_done_to_models(way: str, packed_folders: Any, tmp_path: Path) -> None:
    folder = packed_folders["llama-gqa", way]
    model = HookedTransformer.from_pretrained_no_processing(folder, device="cpu")
    with torch.no_grad():
        expected = model(TOKENS)
        weight = model.blocks[0].attn.W_Q
        stored = weight.data.view(torch.uint8).clone()
        same = {"deepcopy": copy.deepcopy(model), "pickle": pickle.loads(pickle.dumps(model))}
        other = HookedTransformer.from_pretrained_no_processing(folder, device="cpu")
        other.load_state_dict(model.state_dict())
        same["state_dict"] = other
        torch.save(model, tmp_path / "model.pt")
        same["torch.save"] = torch.load(tmp_path / "model.pt", weights_only=False)
        for name, again in same.items():
            kept = again.blocks[0].attn.W_Q
            assert type(kept) is type(weight), name
            assert torch.equal(again(TOKENS), expected), name
        for change in (torch.float16, torch.float32):
            model.to(change, print_details=False)
            assert torch.equal(model.blocks[0].attn.W_Q.data.view(torch.uint8), stored)
        assert torch.allclose(model(TOKENS), expected, rtol=0.05, atol=0.05 * float(expected.abs().max()))
        assert model.to("cpu", print_details=False).blocks[0].attn.W_Q is weight


def test_a_state_dict_of_a_packed_model_loads_into_a_plain_one(packed_folders: Any, folders: Any) -> None:
    packed = HookedTransformer.from_pretrained_no_processing(packed_folders["llama", "nf4"], device="cpu")
    plain = HookedTransformer.from_pretrained_no_processing(folders["llama"], device="cpu")
    plain.load_state_dict(packed.state_dict())
    with torch.no_grad():
        assert torch.equal(plain(TOKENS), packed(TOKENS))


@pytest.mark.parametrize("way", ["nf4", "nf4-nested", "int8"])
def test_the_callers_model_and_ours_do_not_disturb_each_other(way: str, folders: Any) -> None:
    theirs = load_packed(folders["llama-gqa"], way)
    with torch.no_grad():
        before = theirs(TOKENS).logits
        model = HookedTransformer.from_pretrained_no_processing(hf_model=theirs, device="cpu", dtype="auto")
        assert (model.load_report.bytes_borrowed > 0) == can_assign()
        mine = model(TOKENS)
        assert torch.equal(theirs(TOKENS).logits, before)
        assert torch.equal(model(TOKENS), mine)
        twin = HookedTransformer.from_pretrained_no_processing(hf_model=theirs, device="cpu", dtype="auto")
        assert torch.equal(twin(TOKENS), mine)
        # On CPUs with AVX512-BF16, their modules rewrite their weights now.
        for module in packed_modules(theirs).values():
            module.support_avx512bf16_for_cpu = rewrites_weights()
        theirs(TOKENS)
        assert torch.equal(model(TOKENS), mine) and torch.equal(twin(TOKENS), mine)
        del model
        gc.collect()
        theirs(TOKENS)
        assert torch.equal(twin(TOKENS), mine)


def test_a_live_model_whose_weights_were_rewritten_for_the_cpu_kernel(folders: Any) -> None:
    theirs = load_packed(folders["llama"], "nf4")
    expected = HookedTransformer.from_pretrained_no_processing(hf_model=theirs, device="cpu", dtype="auto")
    from bitsandbytes.nn.modules import _convert_weight_packed_for_cpu

    for module in packed_modules(theirs).values():
        module.weight.data, _ = _convert_weight_packed_for_cpu(module.weight.data, module.weight.quant_state)
    model = HookedTransformer.from_pretrained_no_processing(hf_model=theirs, device="cpu", dtype="auto")
    assert torch.equal(model.blocks[0].attn.W_Q.data, expected.blocks[0].attn.W_Q.data)
    with torch.no_grad():
        one, other = model(TOKENS), expected(TOKENS)
    # Their scales were rounded to bfloat16.
    assert (one - other).abs().max() <= 0.03 * other.abs().max()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_steps_that_need_numbers_are_left_out_or_refused(family: str, packed_folders: Any) -> None:
    folder = packed_folders[family, "nf4"]
    model = HookedTransformer.from_pretrained(folder, device="cpu")
    assert {step for step, why in model.load_report.skipped if "packed" in why} >= {"fold_ln", "fold_value_biases"}
    assert "center_unembed" in model.load_report.steps
    plain = HookedTransformer.from_pretrained_no_processing(folder, device="cpu")
    with torch.no_grad():
        one, other = model(TOKENS).log_softmax(-1), plain(TOKENS).log_softmax(-1)
    assert (one - other).abs().max() < 1e-4
    with pytest.raises(QuantizedTensorError, match="fold_ln=True was asked for"):
        HookedTransformer.from_pretrained(folder, fold_ln=True, device="cpu")
    whole = HookedTransformer.from_pretrained(folder, fold_ln=True, dequantize=True, device="cpu")
    with torch.no_grad():
        assert (whole(TOKENS).log_softmax(-1) - other).abs().max() < 1e-3
    assert "fold_ln" in whole.load_report.steps and not whole.load_report.packed
    with pytest.raises(QuantizedTensorError, match="packed"):
        model.process_weights_()


@pytest.mark.parametrize("way", ["nf4", "nf4-nested", "int8"])
@pytest.mark.parametrize("family", FAMILIES)
def test_folded_weights_are_packed_on_load(family: str, way: str, folders: Any) -> None:
    model = HookedTransformer.from_pretrained(folders[family], quantization_config=config(way), device="cpu")
    float_model = HookedTransformer.from_pretrained(folders[family], device="cpu")
    assert "fold_ln" in model.load_report.steps and model.cfg.normalization_type in ("LNPre", "RMSPre")
    assert len(model.blocks[0].attn.packing) == 4
    for name in ("W_Q", "W_K", "W_V", "W_O", "W_in", "W_out"):
        one, other = getattr(model, name), getattr(float_model, name)
        assert one.shape == other.shape
        assert (one - other).norm() <= (0.02 if way == "int8" else 0.15) * other.norm(), name
    with torch.no_grad():
        assert torch.isfinite(model(TOKENS)).all()


def test_skipped_modules_stay_float(folders: Any) -> None:
    settings = {**WAYS["nf4"], "llm_int8_skip_modules": ["lm_head", "down_proj"]}
    model = HookedTransformer.from_pretrained(folders["llama"], quantization_config=settings, device="cpu")
    assert "W_out" not in model.blocks[0].mlp.packing and not model.unembed.packing
    head = {**WAYS["nf4"], "llm_int8_skip_modules": ["k_proj"]}
    model = HookedTransformer.from_pretrained(folders["llama"], quantization_config=head, device="cpu")
    assert "W_U" in model.unembed.packing and "W_K" not in model.blocks[0].attn.packing
    assert model.W_U.shape == (model.cfg.d_model, model.cfg.d_vocab_out)
    with torch.no_grad():
        assert model(TOKENS).shape == (*TOKENS.shape, model.cfg.d_vocab_out)


def test_what_cannot_be_gathered_is_dequantized_and_named(tmp_path: Path) -> None:
    # Rows of 36 numbers, and heads of 12 rows: blocks of 64 end inside both.
    variant = VARIANTS["gpt-neox-square"]
    sizes = {"hidden_size": 36, "num_attention_heads": 3, "vocab_size": 113}
    make_model(dataclasses.replace(variant, settings={**variant.settings, **sizes})).save_pretrained(tmp_path)
    theirs = load_packed(tmp_path, "nf4")
    model = HookedTransformer.from_pretrained_no_processing(hf_model=theirs, device="cpu", dtype="auto")
    assert set(model.load_report.dequantized) == {f"blocks.{layer}.attn.W_{name}" for layer in (0, 1) for name in "QKV"}
    assert "blocks of scales" in model.load_report.dequantized["blocks.0.attn.W_Q"]
    # bitsandbytes' own products are wrong where rows end inside blocks: what was packed is the measure.
    numbers = HookedTransformer.from_pretrained_no_processing(
        hf_model=theirs, device="cpu", dtype="auto", dequantize=True
    )
    with torch.no_grad():
        expected = numbers(TOKENS)
        assert (model(TOKENS) - expected).abs().max() <= 1e-3 * expected.abs().max()


def test_has_fp16_weights(folders: Any) -> None:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    settings = BitsAndBytesConfig(load_in_8bit=True, llm_int8_has_fp16_weight=True)
    theirs = AutoModelForCausalLM.from_pretrained(
        folders["llama-gqa"], dtype=torch.float32, quantization_config=settings
    )
    model = HookedTransformer.from_pretrained_no_processing(hf_model=theirs, device="cpu", dtype="auto")
    assert model.blocks[0].attn.W_Q.has_fp16_weights and model.blocks[0].attn.W_Q.SCB is None
    with torch.no_grad():
        expected = theirs(TOKENS).logits
        assert (model(TOKENS) - expected).abs().max() <= 1e-3 * expected.abs().max()


@pytest.mark.parametrize("mode", ["assign", "copy"])
def test_load_modes(mode: str, packed_folders: Any) -> None:
    folder = packed_folders["llama", "nf4-nested"]
    with may_fall_back(mode):
        model = HookedTransformer.from_pretrained_no_processing(folder, device="cpu", dtype="auto", load_mode=mode)
    report = model.load_report
    assert (report.bytes_mapped > 0) == (mode == "assign" and can_assign())
    assert report.bytes_packed > 0 and "nf4, nested scales" in report.quantization and "packed:" in str(report)
    with torch.no_grad():
        expected = load_packed(folder, None)(TOKENS).logits
        assert (model(TOKENS) - expected).abs().max() <= 1e-3 * expected.abs().max()


def test_other_methods_are_refused_by_name(folders: Any, tmp_path: Path) -> None:
    import json
    import shutil

    folder = shutil.copytree(folders["llama"], tmp_path / "other")
    plain = json.loads((folder / "config.json").read_text())
    for method in ("gptq", "awq", "fp8", "mxfp4", "compressed-tensors"):
        (folder / "config.json").write_text(json.dumps({**plain, "quantization_config": {"quant_method": method}}))
        with pytest.raises(QuantizedTensorError, match=f"packed by {method}"):
            HookedTransformer.from_pretrained(folder, device="cpu")
    with pytest.raises(QuantizedTensorError, match="(?s)packed by gptq.*cannot turn"):
        (folder / "config.json").write_text(json.dumps({**plain, "quantization_config": {"quant_method": "gptq"}}))
        HookedTransformer.from_pretrained(folder, device="cpu", dequantize=True)


def test_contradictions_are_refused(folders: Any, packed_folders: Any) -> None:
    with pytest.raises(QuantizedTensorError, match="exclude each other"):
        HookedTransformer.from_pretrained(folders["llama"], load_in_4bit=True, dequantize=True)
    with pytest.raises(QuantizedTensorError, match="packed already"):
        HookedTransformer.from_pretrained(packed_folders["llama", "nf4"], load_in_8bit=True, device="cpu")
    same = HookedTransformer.from_pretrained(packed_folders["llama", "nf4"], load_in_4bit=True, device="cpu")
    assert same.load_report.packed


def test_without_bitsandbytes(packed_folders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformer_lens.loading.quantization import bitsandbytes

    folder = packed_folders["llama", "nf4-nested"]
    expected = HookedTransformer.from_pretrained(folder, device="cpu", dequantize=True).W_Q
    monkeypatch.setattr(bitsandbytes, "version", lambda: None)
    with pytest.raises(QuantizedTensorError, match=r"transformer-lens\[bitsandbytes\]"):
        HookedTransformer.from_pretrained(folder, device="cpu")
    monkeypatch.setattr(bitsandbytes, "version", lambda: "0.45.5")
    with pytest.raises(QuantizedTensorError, match="0.45.5 cannot multiply on a CPU"):
        HookedTransformer.from_pretrained(folder, device="cpu")
    monkeypatch.setattr(bitsandbytes, "_library", lambda: pytest.fail("it was imported"))
    assert torch.equal(HookedTransformer.from_pretrained(folder, device="cpu", dequantize=True).W_Q, expected)
