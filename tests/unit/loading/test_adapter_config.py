"""``adapter_config.json``: every field of peft's is read, ignored with a reason, or refused; so is any value."""

import dataclasses

import hypothesis.strategies as st
import pytest
from hypothesis import given

from transformer_lens.loading.checkpoint.adapter_config import IGNORED, REFUSED, read_adapter_config
from transformer_lens.loading.errors import CorruptCheckpointError, LoadingError, UnhandledConfigError

BASE = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"]}
READ = (
    "base_model_name_or_path revision use_dora bias lora_bias ensure_weight_tying modules_to_save r lora_alpha "
    "use_rslora rank_pattern alpha_pattern target_modules exclude_modules layers_to_transform layers_pattern "
    "init_lora_weights trainable_token_indices peft_type"
).split()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**7) | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def read(**fields):
    return read_adapter_config({**BASE, **fields}, "here")


def test_every_field_of_peft_has_a_place():
    peft = pytest.importorskip("peft")
    for field in dataclasses.fields(peft.LoraConfig):
        assert sum((field.name in READ, field.name in IGNORED, field.name in REFUSED)) == 1, field.name


def test_what_peft_writes_by_default_is_read():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj"], task_type="CAUSAL_LM").to_dict()
    config = {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
    assert read_adapter_config(config, "here").scale("model.layers.0.q_proj") == 1.5


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("value", [True, [1], {"a": 1}, "x", 1, 0, 0.5])
def test_what_changes_the_meaning_is_refused_by_name(name, value):
    with pytest.raises(UnhandledConfigError, match=name):
        read(**{name: value})


@pytest.mark.parametrize("name", [*REFUSED, "a_field_of_tomorrow"])
@pytest.mark.parametrize("value", [None, False, {}, [], ""])
def test_what_is_not_set_is_as_good_as_absent(name, value):
    assert read(**{name: value}).rank("q_proj") == 4


def test_what_is_not_known_is_refused_and_all_is_named_at_once():
    with pytest.raises(UnhandledConfigError, match=r"(?s)a_field_of_tomorrow.*use_qalora"):
        read(a_field_of_tomorrow=3, use_qalora=True)


@pytest.mark.parametrize(
    "beginning", ["pissa", "pissa_niter_4", "olora", "loftq", "corda", "lora_ga", "x", 3, [], {"a": 1}]
)
def test_beginnings_that_change_the_base_are_refused(beginning):
    with pytest.raises(UnhandledConfigError, match="init_lora_weights"):
        read(init_lora_weights=beginning)


@pytest.mark.parametrize("value", ["6", True, float("inf"), -float("inf"), float("nan"), [6], 1e40])
@pytest.mark.parametrize("place", ["lora_alpha", "alpha_pattern"])
def test_alpha_is_a_finite_number(place, value):
    with pytest.raises(CorruptCheckpointError, match=place):
        read(**{place: {"q_proj": value} if "pattern" in place else value})


@pytest.mark.parametrize("value", ["4", True, 0, -4, 4.0, [4], 10**9])
@pytest.mark.parametrize("place", ["r", "rank_pattern"])
def test_a_rank_is_a_whole_number(place, value):
    with pytest.raises(CorruptCheckpointError, match=place):
        read(**{place: {"q_proj": value} if "pattern" in place else value})


@pytest.mark.parametrize("name", ["use_dora", "use_rslora", "lora_bias", "ensure_weight_tying"])
@pytest.mark.parametrize("value", ["true", 1, 0, [True]])
def test_a_flag_is_true_or_false(name, value):
    with pytest.raises(CorruptCheckpointError, match=name):
        read(**{name: value})


@pytest.mark.parametrize("tokens", [[], [-1], [1, 1], [True], [1.0], "1", {"embed_tokens": []}, {"embed_tokens": 3}])
def test_trained_tokens_are_named_once(tokens):
    with pytest.raises(CorruptCheckpointError, match="trainable_token_indices"):
        read(trainable_token_indices=tokens)


@pytest.mark.parametrize("name", READ)
@given(value=JSON)
def test_any_value_is_read_or_refused(name, value):
    try:
        config = read(**{name: value})
        assert isinstance(config.rank("model.layers.1.self_attn.q_proj"), int)
        assert isinstance(config.scale("model.layers.1.self_attn.q_proj"), float)
        assert config.targets("model.layers.1.self_attn.q_proj") in (True, False, None)
    except LoadingError:
        pass


def test_modules_are_found_as_peft_finds_them():
    module = "model.layers.1.self_attn.q_proj"
    assert read().targets(module) and not read().targets("model.layers.1.self_attn.xq_proj")
    assert read(target_modules="all-linear").targets(module) is None
    assert read(target_modules=r".*\.(1|2)\.self_attn\.q_proj").targets(module)
    assert not read(target_modules=r"self_attn\.q_proj").targets(module)
    assert not read(exclude_modules=["layers.1.self_attn.q_proj"]).targets(module)
    assert read(layers_to_transform=[1]).targets(module) and not read(layers_to_transform=0).targets(module)
    assert read(layers_to_transform=[1], layers_pattern="layers").targets(module)
    assert not read(layers_to_transform=[1], layers_pattern=["blocks"]).targets(module)
    assert not read(modules_to_save=["self_attn"]).targets(module)
    patterns = {r".*\.1\..*proj": 2, "q_proj": 3}
    assert read(rank_pattern=patterns).rank(module) == 2 and read(rank_pattern={"_proj": 9}).rank(module) == 4
    assert read(rank_pattern=patterns, alpha_pattern={"^model.layers.1.self_attn.q_proj": 5}).scale(module) == 2.5
    assert read(rank_pattern={"q_proj": 9}, use_rslora=True).scale(module) == 2.0
