"""Upstream's converters: every import path that it has, and what the registry makes of a live model."""

import importlib

import pytest
import torch

from tests.tiny_models import FAMILIES, VARIANTS, family_of, make_model
from tests.unit.loading.by_hand import by_hand
from tests.unit.loading.test_convert import parts
from transformer_lens import loading_from_pretrained
from transformer_lens.pretrained import weight_conversions

NAMES = [name.removeprefix("convert_").removesuffix("_weights") for name in weight_conversions.__all__]


@pytest.mark.parametrize("name", NAMES)
def test_a_converter_is_one_object_at_every_path(name):
    function = getattr(weight_conversions, f"convert_{name}_weights")
    module = importlib.import_module(f"transformer_lens.pretrained.weight_conversions.{name}")
    assert getattr(weight_conversions, name) is module and module.__all__ == [f"convert_{name}_weights"]
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
    for name in NAMES:
        if name != "nanogpt":  # takes a state dict
            found = getattr(weight_conversions, f"convert_{name}_weights")(hf_model, cfg)
            assert all(torch.equal(found[key], value) for key, value in expected.items())
            assert all(found[key].untyped_storage().data_ptr() in storages for key in expected)
            assert not any(found[key].any() for key in set(found) - set(expected))


def test_a_converter_of_another_family_says_what_there_is():
    with pytest.raises(ImportError, match="convert_bloom_weights is not part .* there are: convert_gpt2_weights, conv"):
        weight_conversions.convert_bloom_weights  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        weight_conversions.other  # noqa: B018
