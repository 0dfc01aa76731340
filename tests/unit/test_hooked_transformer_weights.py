"""Weights of all layers at once, their first values, and where they lie."""

import math

import pytest
import torch

from tests.unit.small_transformers import BASE, KINDS, make_model, make_tokenizer, make_tokens
from transformer_lens.components.parameter import pending_parameter_device
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.FactoredMatrix import FactoredMatrix
from transformer_lens.HookedTransformer import HookedTransformer

EVERY_KIND = pytest.mark.parametrize("kind", sorted(KINDS))


@EVERY_KIND
def test_stacks_are_the_layers(kind):
    model = make_model(kind)
    names = ["attn." + name for name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O")]
    if not model.cfg.attn_only:
        names += ["mlp." + name for name in ("W_in", "W_out", "b_in", "b_out")]
    names += ["mlp.W_gate"] * model.cfg.gated_mlp
    for name in names:
        part, weight = name.split(".")
        stack = getattr(model, weight)
        for layer, block in enumerate(model.blocks):
            assert torch.equal(stack[layer], getattr(getattr(block, part), weight))
    assert model.cfg.gated_mlp or model.W_gate is None
    assert model.W_E is model.embed.W_E and model.W_U is model.unembed.W_U and model.b_U is model.unembed.b_U
    assert model.n_params_total == sum(parameter.numel() for parameter in model.parameters())
    if model.cfg.positional_embedding_type == "standard":
        assert torch.equal(model.W_E_pos, torch.cat([model.W_E, model.W_pos]))


def test_what_is_not_there_is_an_attribute_error():
    assert not hasattr(make_model("llama_gqa"), "W_pos")
    assert not hasattr(make_model("llama_gqa"), "W_E_pos")
    assert not hasattr(make_model("attn_only"), "W_in")


@EVERY_KIND
def test_circuits(kind):
    model = make_model(kind)
    assert isinstance(model.QK, FactoredMatrix) and isinstance(model.OV, FactoredMatrix)
    torch.testing.assert_close(model.QK.AB, model.W_Q @ model.W_K.transpose(-1, -2))
    torch.testing.assert_close(model.OV.AB, model.W_V @ model.W_O)
    for mode, right in (("Q", model.QK.AB), ("K", model.QK.AB.transpose(-1, -2)), ("V", model.OV.AB)):
        scores = model.all_composition_scores(mode)
        assert scores.shape == (3, 6, 3, 6)
        product = model.OV.AB[0, 1] @ right[2, 5]
        expected = product.norm() / model.OV.AB[0, 1].norm() / right[2, 5].norm()
        torch.testing.assert_close(scores[0, 1, 2, 5], expected)
        assert scores[1, :, 1].abs().max() == 0 and scores[2, :, 0].abs().max() == 0
    with pytest.raises(ValueError, match="'Q', 'K'"):
        model.all_composition_scores("q")
    assert model.all_head_labels()[7] == "L1H1" and len(model.all_head_labels()) == 18


@EVERY_KIND
def test_accumulated_bias_is_what_the_biases_add(kind):
    model = make_model(kind)
    expected = sum(block.attn.b_O for block in model.blocks[:2])
    torch.testing.assert_close(model.accumulated_bias(2, include_mlp_biases=False), expected)
    if not model.cfg.attn_only:
        expected = expected + model.blocks[0].mlp.b_out
        torch.testing.assert_close(model.accumulated_bias(1, mlp_input=True), expected)
    assert model.accumulated_bias(0).abs().sum() == 0
    with pytest.raises(ValueError, match="layer 3"):
        model.accumulated_bias(3, mlp_input=True)


@pytest.mark.parametrize(
    "mode", ["gpt2", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "muP"]
)
def test_first_values_have_the_variance_of_the_mode(mode):
    sizes = {"d_model": 96, "d_mlp": 320, "d_head": 24, "n_heads": 6, "d_vocab": 130, "n_layers": 1}
    cfg = HookedTransformerConfig(**{**BASE, **sizes, "init_mode": mode, "initializer_range": 0.5})
    model = HookedTransformer(cfg)
    fans = {"embed.W_E": (130, 96), "blocks.0.attn.W_Q": (96, 144), "blocks.0.attn.W_O": (24, 576)}
    fans |= {"blocks.0.mlp.W_in": (96, 320), "blocks.0.mlp.W_out": (320, 96), "unembed.W_U": (96, 130)}
    for name, (fan_in, fan_out) in fans.items():
        expected = {
            "gpt2": 0.5,
            "xavier": 0.5 * math.sqrt(2 / (fan_in + fan_out)),
            "kaiming": 0.5 * math.sqrt(2 / fan_in),
            "muP": 1.0 if "embed" in name else fan_in**-0.5,
        }[mode.split("_")[0]]
        values = model.get_parameter(name)
        assert values.std().item() == pytest.approx(expected, rel=0.05), name
        if mode.endswith("uniform"):
            assert values.abs().max().item() <= expected * math.sqrt(3) + 1e-6
    for name, parameter in model.named_parameters():
        if "W_" not in name:
            assert parameter.eq(1 if name.endswith(".w") else 0).all()


def test_a_seed_draws_the_same_numbers_again():
    first, second = (HookedTransformer(HookedTransformerConfig(**BASE)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    with pytest.raises(ValueError, match="'muP'"):
        HookedTransformer(HookedTransformerConfig(**{**BASE, "init_mode": "ones"}))
    kept = HookedTransformer(HookedTransformerConfig(**{**BASE, "init_weights": False}))
    assert kept.blocks[0].ln1.w.eq(1).all() and kept.blocks[0].attn.b_Q.eq(0).all()


def test_a_load_builds_on_meta_and_only_what_is_ours():
    class Sub(HookedTransformer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.probe = torch.nn.Linear(3, 5)
            self.inner = HookedTransformer(HookedTransformerConfig(**BASE))

    with pending_parameter_device("meta"):
        model = Sub(HookedTransformerConfig(**BASE), make_tokenizer())
    devices = {name: parameter.device.type for name, parameter in model.named_parameters()}
    ours = {name for name in devices if not name.startswith(("probe", "inner"))}
    assert {devices[name] for name in ours} == {"meta"}
    assert {devices[name] for name in devices if name not in ours} == {"cpu"}
    assert model.hook_dict and model.tokenizer is not None
    assert HookedTransformer(HookedTransformerConfig(**BASE)).W_E.device.type == "cpu"


def test_moving_and_casting_are_written_down(capsys):
    model = make_model()
    for cast, dtype in ((model.half, torch.float16), (model.bfloat16, torch.bfloat16), (model.double, torch.float64)):
        assert cast() is model and model.cfg.dtype == model.W_E.dtype == dtype
    assert model(make_tokens()).dtype == torch.float64
    assert model.to("cpu", print_details=False) is model and torch.device(model.cfg.device).type == "cpu"
    assert capsys.readouterr().out == ""
    assert model.to(torch.float32) is model and model.cfg.dtype == torch.float32
    assert model.cpu() is model and "cpu" in capsys.readouterr().out
    assert model.float()(make_tokens()).dtype == torch.float32


def test_a_model_that_is_where_it_should_be_is_not_touched():
    model = make_model()
    before = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    model.move_model_modules_to_device()
    assert before == {name: parameter.data_ptr() for name, parameter in model.named_parameters()}


def test_switches_and_the_hooks_that_need_them():
    model = make_model()
    for hook, switch in (
        ("attn.hook_result", "use_attn_result"),
        ("hook_q_input", "use_split_qkv_input"),
        ("hook_mlp_in", "use_hook_mlp_in"),
        ("hook_attn_in", "use_attn_in"),
    ):
        name, seen = f"blocks.1.{hook}", []
        with pytest.raises(AssertionError, match=switch):
            model.add_hook(name, lambda value, hook: value)
        getattr(model, f"set_{switch}")(True)
        model.add_hook(name, lambda value, hook, seen=seen: seen.append(value.shape))
        model(make_tokens())
        assert len(seen) == 1
        getattr(model, f"set_{switch}")(False)
        model.reset_hooks()
    grouped = make_model("llama_gqa")
    with pytest.raises(ValueError, match="set_use_split_qkv_input"):
        grouped.set_use_attn_in(True)
    with pytest.raises(ValueError, match="attention-only"):
        make_model("attn_only").set_use_hook_mlp_in(True)
    grouped.set_ungroup_grouped_query_attention(True)
    assert grouped.run_with_cache(make_tokens())[1]["k", 0].shape == (4, 7, 6, 8)
