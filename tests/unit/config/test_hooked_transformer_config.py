"""The config: what it derives, what it refuses, and upstream's order and names."""

import math
import random

import numpy as np
import pytest
import torch

from transformer_lens.config import HookedTransformerConfig, TransformerLensConfig

SHAPE = {"n_layers": 2, "d_model": 48, "n_ctx": 10, "d_head": 16}


def config(**fields) -> HookedTransformerConfig:
    return HookedTransformerConfig(**{**SHAPE, "act_fn": "relu", **fields})


@pytest.mark.parametrize(
    ("given", "derived"),
    [
        ({}, {"n_heads": 3, "d_mlp": 192, "attn_scale": 4.0, "d_vocab_out": -1, "rotary_dim": None}),
        ({}, {"n_params": 55296, "initializer_range": 0.8 / math.sqrt(48), "rope_scaling": None}),
        ({"n_heads": 2}, {"n_heads": 2, "n_params": 49152}),
        ({"attn_only": True, "act_fn": None}, {"d_mlp": None, "n_params": 18432}),
        ({"d_mlp": 7}, {"n_params": 19776}),
        ({"gated_mlp": True}, {"n_params": 73728}),
        # Experts are gated whatever the config says; 2.16.1 counts two of their three matrices here.
        ({"num_experts": 3, "experts_per_token": 2}, {"n_params": 184608}),
        ({"num_experts": 3, "experts_per_token": 2, "gated_mlp": True}, {"n_params": 184608}),
        ({"use_attn_scale": False}, {"attn_scale": -1.0}),
        ({"attn_scale": 2.5}, {"attn_scale": 2.5}),
        ({"init_mode": "xavier_normal"}, {"initializer_range": 1.0}),
        ({"initializer_range": 0.3}, {"initializer_range": 0.3}),
        ({"positional_embedding_type": "rotary"}, {"rotary_dim": 16}),
        ({"positional_embedding_type": "rotary", "rotary_dim": 4}, {"rotary_dim": 4}),
        ({"d_vocab": 50}, {"d_vocab_out": 50}),
        ({"d_vocab": 50, "d_vocab_out": 5}, {"d_vocab_out": 5}),
    ],
)
def test_derives_what_upstream_derives(given, derived):
    cfg = config(**given)
    assert {name: cfg.to_dict()[name] for name in derived} == pytest.approx(derived)


def test_rounds_heads_down_and_says_so(caplog):
    assert config(d_head=7).n_heads == 6
    assert "rounded down to 6" in caplog.text


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"act_fn": None}, "act_fn must be given"),
        ({"act_fn": "sine"}, "'sine'"),
        ({"use_local_attn": True}, "window_size"),
        ({"use_local_attn": True, "window_size": 3}, "attn_types"),
        ({"num_experts": 4}, "experts_per_token"),
        ({"experts_per_token": 2}, "num_experts"),
        ({"n_devices": 1000}, "n_devices is 1000"),
        ({"rope_scaling": {"rope_type": "spiral"}}, "'spiral'"),
        ({"rope_scaling": {}}, "None"),
        ({"rope_scaling": {"rope_type": "linear"}}, "lacks factor"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "beta_fast, beta_slow, truncate, attention_factor"),
    ],
)
@pytest.mark.parametrize("error", [ValueError, AssertionError])
def test_refuses_contradictions_with_an_error_of_either_kind(fields, said, error):
    with pytest.raises(error, match=said):
        config(**fields)


def test_derives_rotary_scaling_from_upstreams_fields():
    llama = config(use_NTK_by_parts_rope=True, NTK_by_parts_factor=32.0, NTK_original_ctx_len=512)
    assert llama.rope_scaling == {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512,
    }
    yarn = config(use_yarn_rope=True, yarn_factor=3.0, yarn_truncate=False).rope_scaling
    assert yarn["factor"] == 3.0 and yarn["truncate"] is False and yarn["attention_factor"] == 1.0
    given = {"rope_type": "linear", "factor": 2.0}
    assert config(use_yarn_rope=True, rope_scaling=given).rope_scaling == given


def test_round_trips_through_a_dict():
    cfg = config(rope_scaling={"rope_type": "linear", "factor": 2.0}, seed=3)
    fields = cfg.to_dict()
    assert HookedTransformerConfig.from_dict(fields) == cfg == HookedTransformerConfig.unwrap(fields)
    assert HookedTransformerConfig.unwrap(cfg) is cfg
    fields["n_layers"] = 9
    assert cfg.n_layers == 2
    with pytest.raises(TypeError):
        HookedTransformerConfig.from_dict({**SHAPE, "attn_only": True, "no_field": 1})


def test_subclasses_make_their_own_kind():
    class Mine(HookedTransformerConfig):
        pass

    assert type(Mine.from_dict({**SHAPE, "attn_only": True})) is Mine
    assert issubclass(HookedTransformerConfig, TransformerLensConfig)


def test_keeps_upstreams_positional_order():
    cfg = HookedTransformerConfig(2, 48, 10, 16, "mine", 3, 7, "gelu", 50)
    assert (cfg.n_layers, cfg.d_model, cfg.n_ctx, cfg.d_head) == (2, 48, 10, 16)
    assert (cfg.model_name, cfg.n_heads, cfg.d_mlp, cfg.act_fn, cfg.d_vocab) == ("mine", 3, 7, "gelu", 50)


def test_a_seed_makes_every_generator_start_alike():
    drawn = []
    for _ in range(2):
        config(seed=5)
        drawn.append((torch.rand(1).item(), random.random(), np.random.rand()))
    assert drawn[0] == drawn[1]


def test_says_which_activation_functions_have_a_layer_norm():
    assert config(act_fn="solu_ln").is_layer_norm_activation()
    assert not config().is_layer_norm_activation()
    assert not config(attn_only=True, act_fn=None).is_layer_norm_activation()


def test_is_printed_with_its_fields():
    assert repr(config()).startswith("HookedTransformerConfig:\n{") and "'d_head': 16" in repr(config())


def test_the_old_import_path_gives_the_same_class():
    from transformer_lens.HookedTransformerConfig import HookedTransformerConfig as old

    assert old is HookedTransformerConfig
