"""Operations on tensors, attributes, names, slices and defaults."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from transformer_lens import utilities
from transformer_lens.utilities import Slice, get_act_name, to_numpy
from transformer_lens.utilities.activation_functions import SUPPORTED_ACTIVATIONS, XIELU, apply_softcap, xielu
from transformer_lens.utilities.addmm import batch_addmm, vanilla_addmm
from transformer_lens.utilities.attention import complex_attn_linear, simple_attn_linear
from transformer_lens.utilities.cache import get_pos_offset
from transformer_lens.utilities.tensors import (
    check_structure,
    filter_dict_by_prefix,
    get_corner,
    get_cumsum_along_dim,
    get_offset_position_ids,
    is_lower_triangular,
    is_square,
    remove_batch_dim,
    repeat_along_head_dimension,
    transpose,
)


@pytest.mark.parametrize(
    "given",
    [
        torch.ones(2, requires_grad=True),
        nn.Parameter(torch.ones(2)),
        torch.ones(2, dtype=torch.bfloat16),
        np.ones(2),
        [1, 1],
        (1.0, 1),
        [torch.tensor(1.0), torch.tensor(1.0)],
    ],
)
def test_to_numpy_takes_arrays_of_every_kind(given):
    assert isinstance(to_numpy(given), np.ndarray) and to_numpy(given).tolist() == [1, 1]


def test_to_numpy_takes_single_values_and_nothing_else():
    for value in (3, 2.5, True, "a"):
        assert to_numpy(value).item() == value
    for wrong in (None, {}):
        with pytest.raises(ValueError):
            to_numpy(wrong)


def test_matrices():
    x = torch.arange(24).view(2, 3, 4).float()
    assert get_corner(x, 2).tolist() == [[[0, 1], [4, 5]], [[12, 13], [16, 17]]]
    assert get_corner(np.arange(20).reshape(4, 5)).shape == (3, 3)
    assert torch.equal(transpose(x), x.mT)
    assert remove_batch_dim(x[:1]).shape == (3, 4) and remove_batch_dim(x) is not None and remove_batch_dim(x).ndim == 3
    assert is_square(x[0, :, :3]) and not is_square(x[0]) and not is_square(x)
    assert is_lower_triangular(torch.ones(3, 3).tril()) and not is_lower_triangular(torch.ones(3, 3))
    assert not is_lower_triangular(torch.ones(2, 3).tril())


def test_repeats_for_heads():
    x = torch.randn(2, 3, 4)
    copies, views = repeat_along_head_dimension(x, 5), repeat_along_head_dimension(x, 5, clone_tensor=False)
    assert torch.equal(copies, views) and torch.equal(copies[:, :, 3], x)
    copies[:, :, 0] = 0
    assert torch.equal(copies[:, :, 1], x) and views.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


def test_check_structure_prints_the_disagreement(capsys):
    check_structure(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[1, 3], [5, 9]]))
    assert capsys.readouterr().out == "PASSED\n"
    check_structure(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[3, 1], [5, 9]]), verbose=True)
    assert "column mismatch: [0]" in capsys.readouterr().out


def test_positions_count_attended_tokens():
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    assert get_offset_position_ids(0, mask).tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]
    assert get_offset_position_ids(2, mask).tolist() == [[0, 1], [2, 3]]
    assert get_cumsum_along_dim(mask, -1, reverse=True).tolist() == [[2, 2, 2, 1], [4, 3, 2, 1]]


def test_positions_in_a_cache():
    cache = [SimpleNamespace(past_keys=torch.zeros(2, 5, 3, 4))]
    assert get_pos_offset(None, 2) == 0 and get_pos_offset(cache, 2) == 5
    with pytest.raises(AssertionError):
        get_pos_offset(cache, 3)


def test_dicts_by_prefix():
    entries = {"a.b": 1, "a.c": 2, "ab": 3}
    assert filter_dict_by_prefix(entries, "a") == filter_dict_by_prefix(entries, "a.") == {"b": 1, "c": 2}


def test_products_with_a_bias():
    x, w, b = torch.randn(2, 3, 4), torch.randn(4, 5), torch.randn(5)
    assert torch.allclose(batch_addmm(b, w, x), x @ w + b, atol=1e-6)
    assert torch.allclose(vanilla_addmm(b, x[0], w), x[0] @ w + b, atol=1e-6)


@pytest.mark.parametrize("stored", ["head d_model d_head", "(head d_head) d_model"])
def test_projections_into_heads(stored):
    w = torch.randn(5, 7, 3) if stored.startswith("head") else torch.randn(15, 7).view(5, 3, 7).transpose(1, 2)
    x, b = torch.randn(2, 4, 7), torch.randn(5, 3)
    expected = torch.stack([x @ w[head] + b[head] for head in range(5)], dim=2)
    assert torch.allclose(simple_attn_linear(x, w, b), expected, atol=1e-5)
    per_head = repeat_along_head_dimension(x, 5)
    assert torch.allclose(complex_attn_linear(per_head, w, b), expected, atol=1e-5)


def test_activation_functions():
    x = torch.linspace(-4, 4, 33).view(3, 11)
    tanh = x / 2 * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))
    expected = dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh"), tanh)
    expected |= {name: x * torch.softmax(x, -1) for name in ("solu", "solu_ln")}
    expected |= {"silu": x * x.sigmoid(), "relu": x.clamp(min=0), "relu2": x.clamp(min=0) ** 2}
    expected["gelu"] = x * torch.special.ndtr(x)
    expected["xielu"] = torch.where(x > 0, 0.8 * x**2, 0.8 * (x.exp() - 1 - x)) + 0.5 * x
    assert expected.keys() == SUPPORTED_ACTIVATIONS.keys()
    for name, value in expected.items():
        assert torch.allclose(SUPPORTED_ACTIVATIONS[name](x), value, atol=1e-5), name
    assert torch.allclose(XIELU()(x), xielu(x), atol=1e-6)


def test_soft_caps():
    x = torch.linspace(-90, 90, 7)
    for off in (None, -1.0, 0.0):
        assert apply_softcap(x, off) is x and not utilities.softcap_enabled(off)
    assert torch.allclose(apply_softcap(x, 30.0), 30 * torch.tanh(x / 30)) and utilities.softcap_enabled(30.0)


@pytest.mark.parametrize(
    ("args", "name"),
    [
        (("k", 6), "blocks.6.attn.hook_k"),
        (("k", 6, "a"), "blocks.6.attn.hook_k"),
        (("k6",), "blocks.6.attn.hook_k"),
        (("attn", "3"), "blocks.3.attn.hook_pattern"),
        (("attn_logits", 0), "blocks.0.attn.hook_attn_scores"),
        (("query", 0), "blocks.0.attn.hook_q"),
        (("rot_k", 0), "blocks.0.attn.hook_rot_k"),
        (("pre5",), "blocks.5.mlp.hook_pre"),
        (("mlp_post", 5), "blocks.5.mlp.hook_post"),
        (("pre_linear", 5), "blocks.5.mlp.hook_pre_linear"),
        (("normalized", 27, "ln2"), "blocks.27.ln2.hook_normalized"),
        (("scale4ln1",), "blocks.4.ln1.hook_scale"),
        (("scale",), "ln_final.hook_scale"),
        (("normalized", 2), "blocks.2.hook_normalized"),
        (("resid_pre", 2), "blocks.2.hook_resid_pre"),
        (("resid_pre", 2, "block"), "blocks.2.hook_resid_pre"),
        (("mlp_out", 2), "blocks.2.hook_mlp_out"),
        (("expert_weights", 2, "m"), "blocks.2.mlp.hook_expert_weights"),
        (("embed",), "hook_embed"),
        (("hook_embed",), "hook_embed"),
        (("blocks.3.attn.hook_z",), "blocks.3.attn.hook_z"),
        (("k",), "attn.hook_k"),
    ],
)
def test_names_of_activations(args, name):
    assert get_act_name(*args) == name


SELECTIONS = [
    (None, "identity", slice(None)),
    (2, "int", 2),
    (-1, "int", -1),
    ((1, 3), "slice", slice(1, 3)),
    ((2,), "slice", slice(2)),
    ((0, 4, 2), "slice", slice(0, 4, 2)),
    (slice(1, 2), "slice", slice(1, 2)),
    ([0, 2], "array", [0, 2]),
    (torch.tensor([3, 0]), "array", [3, 0]),
    (np.array([1]), "array", [1]),
]


@pytest.mark.parametrize(("given", "mode", "index"), SELECTIONS)
@pytest.mark.parametrize("dim", [0, -1])
def test_slices_select_along_an_axis(given, mode, index, dim):
    x = torch.arange(20).view(4, 5) if dim == 0 else torch.arange(20).view(5, 4)
    made = Slice(given)
    assert made.mode == mode and Slice.unwrap(made) is made
    assert torch.equal(made.apply(x, dim), x[index] if dim == 0 else x[:, index])
    assert made.indices(4).tolist() == np.atleast_1d(index if mode == "int" else np.arange(4)[index]).tolist()


def test_slices_of_one_index():
    assert Slice(2).indices().tolist() == [2] and Slice.unwrap(2).mode == "array"
    assert Slice.unwrap(2).apply(torch.arange(5)).tolist() == [2]
    with pytest.raises(ValueError, match="max_ctx"):
        Slice((1, 2)).indices()


def test_attributes_by_path():
    model = SimpleNamespace(cfg=SimpleNamespace(d_model=5))
    assert utilities.get_nested_attr(model, "cfg.d_model") == 5
    utilities.set_nested_attr(model, "cfg.new", 7)
    assert model.cfg.new == 7


def settings(tokenizer=True):
    made = SimpleNamespace(padding_side="right") if tokenizer else None
    return SimpleNamespace(cfg=SimpleNamespace(default_prepend_bos=True), tokenizer=made)


def test_settings_change_for_a_block():
    model = settings()
    with (
        pytest.raises(ZeroDivisionError),
        utilities.LocallyOverridenDefaults(model, prepend_bos=False, padding_side="left"),
    ):
        assert model.cfg.default_prepend_bos is False and model.tokenizer.padding_side == "left"
        raise ZeroDivisionError
    assert model == settings()
    with utilities.LocallyOverridenDefaults(model, prepend_bos=None, padding_side=None):
        assert model == settings()
    with utilities.LocallyOverridenDefaults(settings(tokenizer=False), padding_side="left"):
        pass


@pytest.mark.parametrize("overrides", [{"nothing": 1}, {"prepend_bos": 3}, {"padding_side": "middle"}])
def test_settings_must_be_possible(overrides):
    model = settings()
    with pytest.raises(AssertionError), utilities.LocallyOverridenDefaults(model, **overrides):
        pass
    assert model == settings()


def test_defaults():
    assert utilities.override_or_use_default_value(True, None) is True
    assert utilities.override_or_use_default_value(True, False) is False


@given(st.integers(1, 5), st.integers(1, 8))
def test_language_model_losses(batch, pos):
    logits, tokens = torch.randn(batch, pos + 1, 7), torch.randint(7, (batch, pos + 1))
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").view(batch, pos)
    assert torch.allclose(utilities.lm_cross_entropy_loss(logits, tokens, per_token=True), loss, atol=1e-5)
    assert torch.allclose(utilities.lm_cross_entropy_loss(logits, tokens), loss.mean(), atol=1e-5)
    mask = torch.ones_like(tokens)
    mask[0, -1] = 0
    masked = utilities.lm_cross_entropy_loss(logits, tokens, attention_mask=mask, per_token=True)
    assert masked[0, -1] == 0 and torch.allclose(masked[1:], loss[1:], atol=1e-5)
    if batch * pos > 1:
        mean = utilities.lm_cross_entropy_loss(logits, tokens, attention_mask=mask.bool())
        assert torch.allclose(mean, masked.sum() / (batch * pos - 1), atol=1e-5)
    right = logits[:, :-1].argmax(-1) == tokens[:, 1:]
    assert torch.equal(utilities.lm_accuracy(logits, tokens, per_token=True), right)
    assert utilities.lm_accuracy(logits, tokens) == right.float().mean()
