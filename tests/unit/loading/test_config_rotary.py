"""How positions rotate: both spellings, the normal form, and what makes no sense."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny_models import FAMILIES, VARIANTS, Variant
from tests.unit.loading.configs import ROTARY, hf, read, saved
from transformer_lens.config import HookedTransformerConfig
from transformer_lens.loading.errors import CorruptCheckpointError, UnhandledConfigError
from transformer_lens.utilities.rotary_frequencies import rotary_frequencies


@pytest.mark.parametrize("name", VARIANTS)
def test_rotary_numbers_are_those_of_transformers(name):
    """The dims that rotate and the factor on cos and sin, of transformers' own rotary functions."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    if (reason := VARIANTS[name].why_no_reference()) is not None:
        pytest.skip(reason)
    fields = read(saved(VARIANTS[name]))
    scaling = fields.get("rope_scaling")
    if scaling is None:
        return
    theirs = VARIANTS[name].config().get_text_config()
    rope = theirs.to_dict().get("rope_parameters") or {}
    if "full_attention" in rope:
        # Scaled are the layers without a window.
        theirs.rope_parameters = rope["full_attention"]
    frequencies, attention_factor = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](theirs, torch.device("cpu"), seq_len=9)
    # Phi 3.5's mixtures say the factor themselves.
    attention_factor = rope.get("short_mscale", attention_factor)
    assert fields["rotary_dim"] == 2 * len(frequencies)
    assert scaling.get("attention_factor", 1.0) == pytest.approx(attention_factor, rel=1e-12)


@pytest.mark.parametrize(
    ("rope", "fields"),
    [
        ({"rope_type": "yarn", "factor": 3.0, "original_max_position_embeddings": 16}, {}),
        ({"rope_type": "yarn", "factor": 0.5, "original_max_position_embeddings": 16}, {}),
        ({"rope_type": "yarn", "factor": 3.0, "original_max_position_embeddings": 16, "attention_factor": 1.5}, {}),
        ({"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 16, "mscale": 1.0,
          "mscale_all_dim": 0.7}, {}),
        ({"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4},
         {"original_max_position_embeddings": 16}),
        ({"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "attention_factor": 1.5},
         {"original_max_position_embeddings": 16}),
    ],
)  # fmt: skip
def test_attention_factors_where_factor_and_ratio_differ(rope, fields):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    settings = {**FAMILIES["llama"].least, **fields, "rope_parameters": {"rope_theta": 10000.0, **rope}}
    # Before 4.57 yarn derived it without mscale and factors below 1, or of the lengths in place of the factor.
    derived = rope["rope_type"] == "yarn" and "attention_factor" not in rope
    variant = Variant("LlamaConfig", settings, right_since="4.57" if derived else "4.49")
    if (reason := variant.why_no_reference()) is not None:
        pytest.skip(reason)
    _, expected = ROPE_INIT_FUNCTIONS[rope["rope_type"]](variant.config(), torch.device("cpu"), seq_len=9)
    assert read(saved(variant))["rope_scaling"]["attention_factor"] == pytest.approx(expected, rel=1e-12)


# --- the two spellings


SCALINGS = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 24.0, "truncate": False},
    "longrope": {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "original_max_position_embeddings": 16},
}


@pytest.mark.parametrize("kind", SCALINGS)
@pytest.mark.parametrize("key", ["rope_type", "type"])
def test_both_generations_spell_one_rotation(kind, key):
    old = hf("llama", rope_theta=5e5, rope_scaling={key: kind, **SCALINGS[kind]})
    new = hf("llama", rope_parameters={"rope_theta": 5e5, "rope_type": kind, **SCALINGS[kind]})
    assert read(old) == read(new)
    scaling = read(new)["rope_scaling"]
    assert {name: scaling[name] for name in SCALINGS[kind]} == SCALINGS[kind]
    json.dumps(scaling)
    HookedTransformerConfig(**read(new), init_weights=False, device="cpu")


def test_the_normal_form_has_every_number():
    yarn = read(hf("llama", rope_scaling={"type": "yarn", "factor": 4.0}))["rope_scaling"]
    assert yarn == {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 32.0,
                    "beta_slow": 1.0, "truncate": True, "attention_factor": pytest.approx(1.13862943611)}  # fmt: skip
    dynamic = read(hf("llama", rope_scaling={"type": "dynamic", "factor": 4.0}))["rope_scaling"]
    assert dynamic == {"rope_type": "dynamic", "factor": 4.0, "max_position_embeddings": 64}


def test_upstreams_fields_say_the_same():
    llama3 = read(hf("llama", rope_scaling={"rope_type": "llama3", **SCALINGS["llama3"]}))
    assert llama3["use_NTK_by_parts_rope"] is True
    assert (llama3["NTK_by_parts_factor"], llama3["NTK_by_parts_low_freq_factor"]) == (8.0, 1.0)
    assert (llama3["NTK_by_parts_high_freq_factor"], llama3["NTK_original_ctx_len"]) == (4.0, 32)
    yarn = read(hf("llama", rope_scaling={"rope_type": "yarn", **SCALINGS["yarn"]}))
    assert (yarn["use_yarn_rope"], yarn["yarn_factor"], yarn["yarn_truncate"]) == (True, 4.0, False)
    assert yarn["yarn_original_max_position_embeddings"] == 16
    assert yarn["yarn_attention_factor"] == yarn["rope_scaling"]["attention_factor"]
    for fields in (llama3, yarn):
        assert HookedTransformerConfig(**fields, device="cpu").rope_scaling == fields["rope_scaling"]


def test_theta_inside_the_dict_wins_as_in_transformers():
    assert read(hf("llama", rope_theta=1e6, rope_parameters={"rope_theta": 2e6}))["rotary_base"] == 2000000
    assert read(hf("llama", rope_theta=1e6, rope_parameters={"rope_type": "default"}))["rotary_base"] == 1000000
    assert read(hf("llama", rope_theta=12.5))["rotary_base"] == 12.5


def test_two_dicts_that_disagree():
    fields = {"rope_scaling": {"type": "linear", "factor": 2.0}}
    both = hf("llama", **fields, rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5})
    assert read(both)["rotary_base"] == 500000
    with pytest.raises(UnhandledConfigError, match=r"factor: 4.0 in rope_parameters, 2.0 in rope_scaling"):
        read(hf("llama", **fields, rope_parameters={"rope_type": "linear", "factor": 4.0}))


def test_a_longrope_factor_goes_before_the_ratio_of_lengths():
    rope = {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "factor": 2.0}
    scaling = read(hf("llama", rope_scaling={**rope, "original_max_position_embeddings": 4}))["rope_scaling"]
    assert scaling["attention_factor"] == pytest.approx(1.5**0.5)


# --- what is not understood


@pytest.mark.parametrize("family", ROTARY)
@pytest.mark.parametrize("kind", ["foo", "mrope", "proportional", "", ["yarn"], 3])
def test_an_unknown_rotation(family, kind):
    with pytest.raises(UnhandledConfigError, match="rope_type = "):
        read(hf(family, rope_parameters={"rope_type": kind, "factor": 2.0}))


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"rope_scaling": {"type": "linear"}}, CorruptCheckpointError, "needs 'factor'"),
        ({"rope_scaling": {"type": "linear", "factor": None}}, CorruptCheckpointError, "needs 'factor'"),
        ({"rope_scaling": {"type": "linear", "factor": "4"}}, CorruptCheckpointError, "factor = '4'"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, CorruptCheckpointError, "not above 0"),
        ({"rope_scaling": {"type": "linear", "factor": float("nan")}}, CorruptCheckpointError, "not a number"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "offset": 1}}, UnhandledConfigError, "offset"),
        ({"rope_scaling": {"type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}},
         CorruptCheckpointError, "needs 'original_max_position_embeddings'"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "truncate": 1}}, CorruptCheckpointError, "truncate"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
          "original_max_position_embeddings": 32}, UnhandledConfigError, "which one"),
        ({"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [1.0] * 3}},
         CorruptCheckpointError, "long_factor is not a list of 4 numbers"),
        ({"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [1.0, "2", 1.0, 1.0]}},
         CorruptCheckpointError, r"long_factor\[1\]"),
        ({"rope_scaling": "linear"}, CorruptCheckpointError, "not a dict"),
        ({"rope_theta": "10000"}, CorruptCheckpointError, "rope_theta"),
        ({"rope_theta": -1.0}, CorruptCheckpointError, "not above 0"),
        ({"rope_theta": 10**400}, CorruptCheckpointError, "not a number"),
        ({"partial_rotary_factor": 1.5}, UnhandledConfigError, "cannot rotate"),
        ({"partial_rotary_factor": 0.4}, UnhandledConfigError, "3 cannot rotate"),
        ({"head_dim": 9}, UnhandledConfigError, "9 cannot rotate"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, UnhandledConfigError, "one set a layer"),
    ],
)  # fmt: skip
def test_a_rotation_that_makes_no_sense(fields, error, says):
    with pytest.raises(error, match=says):
        read(hf("llama", **fields))


@pytest.mark.parametrize("high", [1.0, 0.5, 1])
def test_llama3_needs_its_low_factor_below_its_high_one(high):
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": high,
            "original_max_position_embeddings": 16}  # fmt: skip
    with pytest.raises(CorruptCheckpointError, match="low_freq_factor = 1.0 is not below high_freq_factor"):
        read(hf("llama", rope_scaling=rope))


def any_size(smallest: float = -50, largest: float = 30):
    """Numbers of every order of magnitude, those below what float32 has among them."""
    return st.floats(smallest, largest).map(lambda exponent: 10.0**exponent) | st.sampled_from([1.0, 1, 10000.0])


@given(
    theta=any_size(),
    kind=st.sampled_from(["default", "linear", "dynamic", "llama3", "yarn", "longrope"]),
    factor=any_size(),
    other=any_size(),
    mscale=st.none() | st.sampled_from([-10.0, 0.0, 1e-30, 1.0]) | any_size(-5, 30),
)
def test_what_is_read_rotates(theta, kind, factor, other, mscale):
    """Numbers that are numbers each may together be none: they are refused, and never NaN in a model."""
    rope = {"rope_type": kind, "rope_theta": theta}
    rope |= {} if kind in ("default", "longrope") else {"factor": factor}
    rope |= {} if kind not in ("llama3", "yarn", "longrope") else {"original_max_position_embeddings": 16}
    if kind == "llama3":
        rope |= {"low_freq_factor": other, "high_freq_factor": 4.0}
    if kind == "longrope":
        rope |= {"short_factor": [factor] * 4, "long_factor": [other] * 4}
    if kind == "yarn":
        rope |= {"beta_fast": other, "mscale": mscale, "mscale_all_dim": mscale}
    if kind in ("yarn", "longrope") and mscale is not None:
        rope |= {"attention_factor": mscale} if kind == "longrope" else {}
    try:
        fields = read(hf("llama", rope_parameters=rope))
    except (CorruptCheckpointError, UnhandledConfigError):
        return
    for length in (1, 16, 17, 64, 4096):
        frequencies, scale = rotary_frequencies(
            fields["rotary_dim"], float(fields["rotary_base"]), fields["rope_scaling"], length
        )
        turned = torch.cat([wave(frequencies * (length - 1)) * scale for wave in (torch.cos, torch.sin)])
        assert turned.isfinite().all() and turned.to(torch.float16).isfinite().all()


@pytest.mark.parametrize("family", ROTARY)
@pytest.mark.parametrize("theta", [1e-300, 1e-60, 1e-45])
def test_a_base_that_gives_no_angles(family, theta):
    """Powers of it underflow in float32: transformers divides by zero, and every logit is NaN."""
    with pytest.raises(CorruptCheckpointError, match="frequencies of rotation"):
        read(hf(family, rope_parameters={"rope_type": "default", "rope_theta": theta, "partial_rotary_factor": 1.0}))
