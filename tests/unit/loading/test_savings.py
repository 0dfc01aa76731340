"""What a report says that other arguments save is what the loads with those arguments take less."""

import functools
import re

import pytest
import torch

from tests.tiny_models import VARIANTS, make_model, save
from transformer_lens import HookedTransformer
from transformer_lens.hooked_transformer.pretrained import request_of
from transformer_lens.loading import prepare, prepare_state_dict
from transformer_lens.loading import savings as module
from transformer_lens.loading.loaders import can_assign
from transformer_lens.loading.quantization import bitsandbytes
from transformer_lens.loading.request import Request
from transformer_lens.loading.savings import Savings

PACKINGS = {"numbers": {}, "4 bits": {"load_in_4bit": True}}
OFF = dict.fromkeys(("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases"), False)
assigns = pytest.mark.skipif(not can_assign(), reason="this torch cannot assign")


@pytest.fixture(scope="module", params=[("gpt2", "float32"), ("llama-gqa", "bfloat16")], ids=str)
def folder(request, tmp_path_factory):
    family, dtype = request.param
    return str(save(VARIANTS[family], tmp_path_factory.mktemp(family), getattr(torch, dtype)))


@functools.cache
def allocated(folder, **arguments):
    """Returns the bytes that the numbers of a load's parameters allocate, packed matrices apart."""
    prepared = prepare(request_of(folder, device="cpu", **arguments))
    report = prepared.report()
    kept = sum(tensor.nbytes for tensor in prepared.weights.values() if tensor.packed is None)
    return kept if report.load_mode == "copy" else report.bytes_allocated - report.bytes_packed


def savings_of(folder, **arguments):
    prepared = prepare(request_of(folder, device="cpu", **arguments))
    return Savings(prepared.weights, prepared.converted.weights, prepared.plan.steps, prepared.choice.mode)


@assigns
@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("dtype", ["float32", "auto"])
@pytest.mark.parametrize("mode", ["assign", "copy"])
@pytest.mark.parametrize("flags", [{}, OFF], ids=["processed", "as it is"])
def test_each_sum_is_that_of_the_load_that_it_stands_for(folder, packing, dtype, mode, flags):
    if packing != "numbers" and not bitsandbytes.multiplies_on(torch.device("cpu")):
        pytest.skip("bitsandbytes cannot pack here")
    given = {"dtype": dtype, "load_mode": mode, **flags, **PACKINGS[packing]}
    found = savings_of(folder, **given)
    file_dtype = found.found["embed.W_E"].dtype
    assert found.allocated() == allocated(folder, **given)
    # What a step might have changed counts as changed: so much is saved at the least.
    auto = allocated(folder, **{**given, "dtype": "auto"})
    assert found.allocated(file_dtype=file_dtype) >= auto
    if flags:
        assert found.allocated(file_dtype=file_dtype) == auto
    assert found.allocated(mode="assign") == allocated(folder, **{**given, "load_mode": "assign"})
    for other in ("assign", "copy"):
        bare = found.allocated(file_dtype=file_dtype, processed=False, mode=other)
        assert bare == allocated(folder, **{**given, **OFF, "dtype": "auto", "load_mode": other})


@pytest.mark.parametrize("packing", PACKINGS)
def test_nothing_is_said_of_what_is_packed_or_right_already(folder, packing, monkeypatch):
    if packing != "numbers" and not bitsandbytes.multiplies_on(torch.device("cpu")):
        pytest.skip("bitsandbytes cannot pack here")
    monkeypatch.setattr(module, "_WORTH_SAYING", 1)
    load_mode = "assign" if can_assign() else "copy"
    model = HookedTransformer.from_pretrained_no_processing(
        folder, device="cpu", dtype="auto", load_mode=load_mode, **PACKINGS[packing]
    )
    assert model.load_report.savings == ()


@assigns
def test_the_words_name_what_each_change_does(folder, monkeypatch):
    monkeypatch.setattr(module, "_WORTH_SAYING", 1)
    for given in ({}, {"load_mode": "copy"}, {"dtype": "auto"}, {"dtype": "float64"}):
        prepared = prepare(request_of(folder, device="cpu", **given))
        for sentence in prepared.report().savings:
            assert re.match(r"[\d.]+ (B|KiB|MiB) (because|in all)", sentence)
            assert ("load_mode='copy'" in sentence) <= (given.get("load_mode") == "copy")
            assert not (given.get("dtype") == "auto" and "because float" in sentence)
    hf_model = make_model(VARIANTS["gpt2"])
    (sentence,) = prepare(request_of(hf_model=hf_model, device="cpu")).report().savings
    assert sentence.endswith("would share the model's tensors")


@assigns
def test_a_state_dict_is_told_of_its_own_arguments(monkeypatch):
    monkeypatch.setattr(module, "_WORTH_SAYING", 1)
    model = HookedTransformer.from_pretrained_no_processing(hf_model=make_model(VARIANTS["gpt2"]), device="cpu")
    request = Request("", flags=request_of("x").flags, device="cpu", load_mode="assign")
    (sentence,) = prepare_state_dict(model.state_dict(), model.cfg, request).report().savings
    assert "from_pretrained" not in sentence and sentence.endswith("would share its tensors")
