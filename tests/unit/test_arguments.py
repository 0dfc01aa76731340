"""Arguments that mean nothing here, or nothing at all: refused before anything is read, with what to write instead."""

import inspect
import logging
import re

import pytest
import torch

from tests.tiny_models import VARIANTS, make_model, save
from tests.unit.small_transformers import make_model as small_model
from tests.unit.small_transformers import make_tokens
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.hooked_transformer.arguments import ARGUMENTS
from transformer_lens.loading import DeviceError, UnknownModelError
from transformer_lens.loading.request import _OF_TRANSFORMERS, requested_dtype
from transformer_lens.utilities.dtypes import COMPUTES

SIGNATURE = [
    name
    for name, parameter in inspect.signature(HookedTransformer.from_pretrained).parameters.items()
    if parameter.kind is not inspect.Parameter.VAR_KEYWORD
]
CALLS = {
    "load": HookedTransformer.from_pretrained,
    "no-processing": HookedTransformer.from_pretrained_no_processing,
    "plan": HookedTransformer.plan_load,
}


def test_what_is_proposed_is_what_is_taken():
    assert set(ARGUMENTS) == {*SIGNATURE, "torch_dtype"}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", SIGNATURE)
def test_a_misspelt_argument_gets_its_nearest_name(name, call):
    misspelt = name[:-2] + name[-1] + name[-2] if len(name) > 2 and name[-1] != name[-2] else name + "s"
    if misspelt in SIGNATURE:
        pytest.skip("that is an argument too")
    with pytest.raises(TypeError, match=f"  {misspelt}: did you mean {name}\\?"):
        CALLS[call]("no-such-folder", **{misspelt: 1})


@pytest.mark.parametrize("name", _OF_TRANSFORMERS)
def test_an_argument_of_transformers_gets_what_to_use_here(name):
    assert name not in ARGUMENTS
    with pytest.raises(TypeError, match=f"{name} is an argument of transformers; here it is "):
        HookedTransformer.from_pretrained("no-such-folder", **{name: None})


def test_all_that_is_not_known_is_told_at_once():
    with pytest.raises(TypeError, match="(?s)know: device_map, fold_lm, qqq.*device_map is.*fold_lm: did you"):
        HookedTransformer.from_pretrained("no-such-folder", fold_lm=True, device_map="auto", qqq=1)


def test_a_field_of_a_config_gets_its_nearest_name():
    with pytest.raises(TypeError, match="no field 'n_layer': did you mean n_layers"):
        HookedTransformerConfig.from_dict({"n_layer": 2, "d_model": 4, "n_ctx": 3, "d_head": 2})


# -- devices and dtypes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["gpu", "xpu:5", "meta", "cuda:77", torch.device("xpu", 5)])
@pytest.mark.parametrize("call", ["load", "no-processing", "state-dict"])
def test_a_device_that_is_not_here_is_refused_before_anything_is_read(device, call, tmp_path):
    """The folder is empty: what would read it says so."""
    with pytest.raises(DeviceError, match="(?s)device = .*docs/errors.md, DeviceError"):
        if call == "state-dict":
            HookedTransformer.from_state_dict({}, small_model().cfg, device=device)
        else:
            CALLS[call](tmp_path, device=device)


@pytest.mark.parametrize("device", ["xpu", "xpu:5", "cuda:77", "mps"])
def test_a_load_onto_a_device_that_is_elsewhere_can_be_planned(device, tmp_path):
    save(VARIANTS["llama-gqa"], tmp_path)
    here = HookedTransformer.plan_load(tmp_path, device="cpu")
    there = HookedTransformer.plan_load(tmp_path, device=device)
    cost = next(cost for cost in there.modes["copy"].devices if cost.device.startswith(device))
    model_bytes = sum(cost.allocated for cost in here.modes["copy"].devices)
    assert cost.allocated == model_bytes and device in str(there)


@pytest.mark.parametrize("dtype", COMPUTES)
def test_every_dtype_that_models_compute_in_is_loaded(dtype):
    hf_model = make_model(VARIANTS["llama-gqa"])
    for given in (dtype, str(dtype), str(dtype).removeprefix("torch.").upper()):
        model = HookedTransformer.from_pretrained_no_processing(hf_model=hf_model, dtype=given, device="cpu")
        assert {parameter.dtype for parameter in model.parameters()} == {dtype} == {model.cfg.dtype}


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", torch.int8, "nope", torch.complex64])
def test_other_dtypes_are_refused_before_anything_is_read(dtype, tmp_path):
    with pytest.raises(ValueError, match="models compute in"):
        HookedTransformer.from_pretrained(tmp_path, dtype=dtype)


def test_no_dtype_is_told_of_auto_and_auto_is_none():
    assert requested_dtype("auto") is requested_dtype("Auto") is None


def test_two_dtypes_are_one_too_many():
    hf_model = make_model(VARIANTS["llama-gqa"])
    with pytest.raises(ValueError, match="mean the same and differ"):
        HookedTransformer.from_pretrained(hf_model=hf_model, dtype="float16", torch_dtype="bfloat16")
    model = HookedTransformer.from_pretrained_no_processing(hf_model=hf_model, torch_dtype="bfloat16", device="cpu")
    assert model.cfg.dtype == torch.bfloat16


# -- names of models ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mistyped", ["my_modle", "My_Model", "my-model", "my_model2", "my_modle/inside"])
@pytest.mark.parametrize("relative", [False, True])
def test_a_mistyped_path_is_told_what_stands_beside_it(mistyped, relative, tmp_path, monkeypatch):
    for name in ("my_model", "another", "notes"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    if relative and "/" in mistyped:
        mistyped = f"./{mistyped}"
    with pytest.raises(UnknownModelError, match="Beside it there is '.*my_model'") as caught:
        HookedTransformer.from_pretrained(mistyped if relative else str(tmp_path / mistyped))
    assert "notes" not in str(caught.value).replace(str(tmp_path), "")


def test_a_known_name_is_not_proposed_in_its_own_place():
    with pytest.raises(UnknownModelError, match="HF_HUB_OFFLINE") as caught:
        HookedTransformer.from_pretrained("gpt2")
    assert "nearest" not in str(caught.value)
    with pytest.raises(UnknownModelError, match="nearest names are .*gpt2"):
        HookedTransformer.from_pretrained("gpt22")


# -- names of hook points ----------------------------------------------------------------------------------------------


NEAREST = "no hook point is named 'blocks.0.hook_resid_prre'; nearest: .*blocks.0.hook_resid_pre"


@pytest.mark.parametrize("names", ["blocks.0.hook_resid_prre", ["blocks.0.hook_resid_prre"]])
def test_a_name_that_no_hook_point_has_is_told_with_the_nearest(names):
    with pytest.warns(UserWarning, match=NEAREST):
        _, cache = small_model().run_with_cache(make_tokens(), names_filter=names)
    assert len(cache) == 0


def test_one_such_name_among_others_is_logged(caplog):
    _, cache = small_model().run_with_cache(make_tokens(), names_filter=["hook_embed", "blocks.0.hook_resid_prre"])
    assert list(cache) == ["hook_embed"] and re.search(NEAREST, caplog.text)


def test_nothing_is_asked_for_on_purpose_without_a_word(caplog):
    model = small_model()
    for names in ([], (), ["hook_embed"], "hook_embed", None, lambda name: name == "hook_embed"):
        model.run_with_cache(make_tokens(), names_filter=names)
    assert caplog.records == []


def test_a_predicate_that_is_always_false_is_logged(caplog):
    with caplog.at_level(logging.WARNING):
        _, cache = small_model().run_with_cache(make_tokens(), names_filter=lambda name: False)
    assert len(cache) == 0 and "accepts none of the" in caplog.text and "hook_embed" in caplog.text
