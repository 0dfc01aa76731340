"""Upstream 3's functions of processing: out of place, and the model that reads their results computes the same."""

import pytest
import torch

from tests.unit.small_transformers import make_model, make_tokens
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.utilities import temporarily_swap_parameter
from transformer_lens.weight_processing import ProcessWeights


def log_probs(cfg, state_dict, tokens):
    model = HookedTransformer(cfg)
    model.load_state_dict(state_dict)
    return model(tokens).log_softmax(-1)


def test_processing_a_state_dict_keeps_log_probs_and_the_dict():
    model, tokens = make_model(), make_tokens(batch=2, length=6)
    own = model.state_dict()
    before = {name: tensor.clone() for name, tensor in own.items()}
    processed = ProcessWeights.process_weights(own, model.cfg)
    cfg = HookedTransformerConfig.from_dict({**model.cfg.to_dict(), "normalization_type": "LNPre"})
    torch.testing.assert_close(log_probs(cfg, processed, tokens), model(tokens).log_softmax(-1), atol=1e-4, rtol=0)
    steps = ProcessWeights.fold_layer_norm(own, model.cfg)
    steps = ProcessWeights.fold_value_biases(steps, cfg)
    steps = ProcessWeights.center_unembed(ProcessWeights.center_writing_weights(steps, cfg), cfg)
    assert set(steps) == set(processed)
    assert all(torch.allclose(steps[name], processed[name], atol=1e-5) for name in steps)
    assert all(torch.equal(own[name], before[name]) for name in before)
    without_cfg, with_cfg = ProcessWeights.center_unembed(own), ProcessWeights.center_unembed(own, model.cfg)
    torch.testing.assert_close(without_cfg["unembed.W_U"], with_cfg["unembed.W_U"], atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="adapter belongs to upstream's bridge"):
        ProcessWeights.center_unembed(own, model.cfg, adapter=object())


def test_a_folded_norm_is_the_norm_and_the_map_behind_it():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(4, 7), torch.randn(7), torch.randn(7)
    heads, biases = torch.randn(3, 7, 5), torch.randn(3, 5)
    normal = (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True)

    def project(y, W, b):
        return torch.einsum("pm,hmd->phd", y, W) + b[None]

    three = (heads, heads + 1, heads * 2)
    folded_b = ProcessWeights.fold_layer_norm_biases(*three, biases, biases, biases, bias)
    folded_W = ProcessWeights.fold_layer_norm_weights(*three, weight)
    centred = ProcessWeights.center_attention_weights(*folded_W)
    for W, b, new_W in zip(three, folded_b, centred, strict=True):
        expected = project(normal * weight + bias, W, biases)
        torch.testing.assert_close(project(normal, new_W, b), expected, atol=1e-4, rtol=0)
        assert new_W.mean(-2).abs().max() < 1e-5


def test_a_swapped_parameter_comes_back():
    parameter = torch.nn.Parameter(torch.ones(2, 3))
    own, other = parameter.data_ptr(), torch.zeros(2, 3, dtype=torch.float64)
    with pytest.raises(KeyError), temporarily_swap_parameter(parameter, other) as swapped:
        assert swapped is parameter and not parameter.any()
        raise KeyError
    assert parameter.data_ptr() == own and bool(parameter.all())
    with pytest.raises(ValueError, match="shape"), temporarily_swap_parameter(parameter, torch.ones(3)):
        pass
