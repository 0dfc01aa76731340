"""Upstream's converters: every import path that it has, and what the registry makes of a live model."""

import importlib
import inspect

import pytest
import torch

from tests.tiny_models import FAMILIES, VARIANTS, family_of, make_model
from tests.unit.loading.by_hand import by_hand
from tests.unit.loading.test_convert import parts
from transformer_lens import loading_from_pretrained
from transformer_lens.pretrained import weight_conversions

NAMES = [name.removeprefix("convert_").removesuffix("_weights") for name in weight_conversions.__all__]

OF_A_STATE_DICT = ("mingpt", "nanogpt", "neel_solu_old")


@pytest.mark.parametrize("name", NAMES)
def test_a_converter_is_one_object_at_every_path(name):
    function = getattr(weight_conversions, f"convert_{name}_weights")
    path = "openai" if name == "gpt_oss" else name
    module = importlib.import_module(f"transformer_lens.pretrained.weight_conversions.{path}")
    assert getattr(weight_conversions, path) is module and f"convert_{name}_weights" in module.__all__
    assert getattr(module, f"convert_{name}_weights") is function and function.__name__ == f"convert_{name}_weights"
    if name != "nanogpt":  # upstream's loader does not have that one
        assert getattr(loading_from_pretrained, f"convert_{name}_weights") is function


@pytest.mark.parametrize(
    "variant",
    {variant.config_class: variant for variant in VARIANTS.values() if FAMILIES[family_of(variant)].by_hand}.values(),
)
def test_the_table_goes_by_the_model(variant):
    hf_model = make_model(variant)
    _, cfg, _ = parts(hf_model)
    expected = dict(by_hand(FAMILIES[family_of(variant)].by_hand, hf_model, cfg.n_key_value_heads is not None))
    storages = {parameter.untyped_storage().data_ptr() for parameter in hf_model.parameters()}
    for name in sorted({*NAMES[::7], "llama"}):  # all are one mechanism
        if name not in OF_A_STATE_DICT:
            found = getattr(weight_conversions, f"convert_{name}_weights")(hf_model, cfg)
            assert all(torch.equal(found[key], value) for key, value in expected.items())
            assert all(found[key].untyped_storage().data_ptr() in storages for key in expected)
            assert not any(found[key].any() for key in set(found) - set(expected))


def test_a_converter_is_called_by_upstreams_names():
    hf_model = make_model(VARIANTS["llama-gqa"])
    _, cfg, _ = parts(hf_model)
    converter = weight_conversions.convert_llama_weights
    assert list(inspect.signature(converter).parameters) == ["llama", "cfg"]
    assert set(converter(cfg=cfg, llama=hf_model)) == set(converter(hf_model, cfg))
    with pytest.raises(TypeError, match="missing a required argument: 'cfg'"):
        converter(hf_model)


def test_a_converter_that_is_left_out_says_what_to_use():
    with pytest.raises(ImportError, match="unreadable_weight_reason does not exist .*load_report"):
        loading_from_pretrained.unreadable_weight_reason  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        weight_conversions.other  # noqa: B018
