"""What notebooks and other packages write, line by line as they write it."""

from functools import partial

import numpy as np
import pytest
import torch

import transformer_lens
import transformer_lens.utils as utils
from tests.unit.small_transformers import make_model, make_tokenizer, make_tokens
from transformer_lens import (
    ActivationCache,
    FactoredMatrix,
    HookedTransformer,
    HookedTransformerConfig,
    evals,
    patching,
)
from transformer_lens.hook_points import HookPoint

CLOSE = {"atol": 2e-5, "rtol": 1e-4}
TEXT = "a b c d e f"


@pytest.fixture(params=["gpt2", "llama_gqa", "parallel_rotary"])
def model(request):
    return make_model(request.param, tokenizer=make_tokenizer())


@pytest.fixture
def tokens():
    return make_tokens()


def test_keys_of_a_cache(model, tokens):
    logits, cache = model.run_with_cache(tokens)
    assert isinstance(cache, ActivationCache) and logits.shape == (4, 7, 29)
    pattern = cache["blocks.0.attn.hook_pattern"]
    assert cache["pattern", 0] is cache["pattern", 0, "attn"] is cache[utils.get_act_name("pattern", 0)] is pattern
    assert cache["resid_post", -1] is cache["resid_post", 2] and cache["k", 1].shape[:2] == (4, 7)
    assert utils.get_act_name("z", 1) == "blocks.1.attn.hook_z"
    assert cache.cache_dict is not None and "hook_embed" in cache.cache_dict
    with pytest.raises(KeyError):
        cache["k", 5]
    assert torch.equal(pattern.tril(), pattern)
    torch.testing.assert_close(pattern.sum(-1), torch.ones(4, 6, 7))


@pytest.mark.parametrize(
    "names_filter",
    ["blocks.1.attn.hook_z", ["blocks.1.attn.hook_z"], lambda name: name == "blocks.1.attn.hook_z"],
    ids=["str", "list", "callable"],
)
def test_filters(model, tokens, names_filter):
    _, cache = model.run_with_cache(tokens, names_filter=names_filter, return_type=None)
    assert list(cache) == ["blocks.1.attn.hook_z"]
    _, full = model.run_with_cache(tokens)
    torch.testing.assert_close(cache["z", 1], full["z", 1], **CLOSE)


def test_no_batch(model):
    _, cache = model.run_with_cache(TEXT, remove_batch_dim=True)
    assert cache["pattern", 0].shape == (6, *[len(model.to_str_tokens(TEXT))] * 2)
    _, batched = model.run_with_cache(TEXT)
    again = batched.remove_batch_dim()
    assert again is batched and torch.equal(again["pattern", 0], cache["pattern", 0])


def test_hooks(model, tokens):
    plain = model(tokens)

    def ablate(z, hook, head):
        z[:, :, head, :] = 0.0
        return z

    def ablate_in_place(z, hook, head):
        z[:, :, head, :] = 0.0

    def look(z, hook):
        seen.append((hook.name, hook.layer(), z.shape))

    seen = []
    name = utils.get_act_name("z", 1)
    by_name = model.run_with_hooks(tokens, fwd_hooks=[(name, partial(ablate, head=0)), (name, look)])
    by_predicate = model.run_with_hooks(
        tokens, fwd_hooks=[(lambda hook_name: hook_name == name, partial(ablate_in_place, head=0))]
    )
    assert seen == [(name, 1, (4, 7, 6, 8))]
    torch.testing.assert_close(by_name, by_predicate)
    assert (by_name - plain).abs().max() > 1e-3
    with model.hooks(fwd_hooks=[(name, partial(ablate, head=0))]):
        torch.testing.assert_close(model(tokens), by_name)
        with model.hooks(fwd_hooks=[(name, partial(ablate, head=1))]):
            assert (model(tokens) - by_name).abs().max() > 1e-3
        torch.testing.assert_close(model(tokens), by_name)
    torch.testing.assert_close(model(tokens), plain)


def test_hooks_that_stay(model, tokens):
    plain = model(tokens)
    model.add_hook("hook_embed", lambda value, hook: value * 0)
    model.add_hook("blocks.0.hook_resid_pre", lambda value, hook: value * 2, is_permanent=True)
    model.reset_hooks()
    with_permanent = model(tokens)
    assert (with_permanent - plain).abs().max() > 1e-3
    model.reset_hooks(including_permanent=True)
    torch.testing.assert_close(model(tokens), plain)


@pytest.mark.parametrize("place", ["attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_z", "hook_resid_pre"])
def test_edits_in_place_touch_nothing_else(model, tokens, place):
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    hook_name = f"blocks.1.{place}"
    _, before = model.run_with_cache(tokens, stop_at_layer=2)

    def hook(value, hook):
        value[:] = 0.0

    with torch.no_grad():
        with model.hooks(fwd_hooks=[(hook_name, hook)]):
            _, after = model.run_with_cache(tokens, stop_at_layer=2)
    assert (after[hook_name] == 0).all()
    names = [f"blocks.1.attn.hook_{letter}" for letter in "qkv"]
    for name in names if place in ("attn.hook_q", "attn.hook_k", "attn.hook_v") else []:
        if name != hook_name:
            torch.testing.assert_close(after[name], before[name])
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_strings(model):
    by_text = model.to_str_tokens(TEXT)
    tokens = model.to_tokens(TEXT)
    assert by_text == model.to_str_tokens(tokens) == model.to_str_tokens(tokens[0])
    assert model.to_str_tokens([TEXT, "a"])[0] == by_text and model.to_str_tokens(np.array([4, 5])) == ["a", "b"]
    assert model.to_single_token("c") == 6 and isinstance(model.to_string(tokens[0]), str)
    assert len(by_text) == tokens.shape[1]


def test_weights_and_circuits(model):
    assert model.blocks[0].attn.W_Q.shape == (6, 14, 8) and model.W_Q.shape == (3, 6, 14, 8)
    OV = FactoredMatrix(model.W_V[0, 1], model.W_O[0, 1])
    full = model.W_E @ OV @ model.W_U[:, :10]
    expected = model.W_E @ model.W_V[0, 1] @ model.W_O[0, 1] @ model.W_U[:, :10]
    torch.testing.assert_close(full.AB, expected, atol=1e-3, rtol=1e-3)
    U, S, V = full.svd()
    torch.testing.assert_close(U @ S.diag() @ V.T, expected, atol=1e-3, rtol=1e-3)
    square = model.W_U.T[:, :] @ model.OV[0, 1] @ model.W_U
    assert square.shape == (29, 29) and square.eigenvalues.is_complex()
    scores = model.all_composition_scores("Q")
    assert scores.shape == (3, 6, 3, 6) and len(model.all_head_labels()) == 18


def test_patching(model, tokens):
    clean, corrupted = tokens[:2], tokens[2:]
    _, cache = model.run_with_cache(clean)

    def metric(logits):
        return (logits[:, -1, 5] - logits[:, -1, 6]).mean()

    assert patching.get_act_patch_resid_pre(model, corrupted, cache, metric).shape == (3, 7)
    result = patching.get_act_patch_attn_head_out_all_pos(model, corrupted, cache, metric)
    last = patching.get_act_patch_resid_pre(model, corrupted, cache, metric)[0, -1]
    assert result.shape == (3, 6) and last.isfinite()


def test_direct_logit_attribution():
    model = make_model("folded", tokenizer=make_tokenizer())
    answers = torch.tensor([[5, 6], [7, 8], [5, 8], [4, 6]])
    logits, cache = model.run_with_cache(make_tokens())
    directions = model.tokens_to_residual_directions(answers)
    difference = directions[:, 0] - directions[:, 1]
    stack, labels = cache.decompose_resid(layer=-1, pos_slice=-1, return_labels=True)
    scaled = cache.apply_ln_to_stack(stack, layer=-1, pos_slice=-1)
    attributions = torch.einsum("...bd,bd->...b", scaled, difference)
    torch.testing.assert_close(
        attributions, cache.logit_attrs(stack, answers[:, 0], answers[:, 1], pos_slice=-1), **CLOSE
    )
    final = logits[:, -1].gather(1, answers) - model.b_U[answers]
    torch.testing.assert_close(attributions.sum(0), final[:, 0] - final[:, 1], atol=1e-3, rtol=1e-3)
    lens, _ = cache.accumulated_resid(layer=-1, incl_mid=True, pos_slice=-1, return_labels=True)
    assert lens.shape == (7, 4, 14) and len(labels) == 8
    heads = cache.stack_head_results(layer=-1, pos_slice=-1)
    assert heads.unflatten(0, (3, 6)).shape == (3, 6, 4, 14)


@pytest.mark.parametrize("switch", ["set", "assign"])
def test_results_of_heads(model, tokens, switch):
    plain = model(tokens)
    if switch == "set":
        model.set_use_attn_result(True)
    else:
        model.cfg.use_attn_result = True
    logits, cache = model.run_with_cache(tokens)
    assert cache["result", 0].shape == (4, 7, 6, 14)
    torch.testing.assert_close(logits, plain, **CLOSE)
    torch.testing.assert_close(cache["result", 0].sum(-2) + model.blocks[0].attn.b_O, cache["attn_out", 0], **CLOSE)


def test_generation(model):
    text = model.generate("a b", max_new_tokens=3, do_sample=False, verbose=False)
    assert isinstance(text, str)
    tokens = model.generate(model.to_tokens("a b"), max_new_tokens=3, do_sample=False, verbose=False, stop_at_eos=False)
    assert tokens.shape[1] == model.to_tokens("a b").shape[1] + 3


def test_parts_of_a_run(model, tokens):
    residual = model(tokens, stop_at_layer=2)
    torch.testing.assert_close(model(residual, start_at_layer=2), model(tokens), **CLOSE)
    torch.testing.assert_close(model(model.input_to_embed(tokens)[0], start_at_layer=0), model(tokens), **CLOSE)


def test_return_types(model, tokens):
    logits, loss = model(tokens, return_type="both")
    torch.testing.assert_close(model(tokens, return_type="loss"), loss)
    torch.testing.assert_close(model(tokens, return_type="logits"), logits)
    assert model(tokens, return_type=None) is None
    per_token = model(tokens, return_type="loss", loss_per_token=True)
    assert per_token.shape == (4, 6)
    torch.testing.assert_close(per_token.mean(), loss)
    torch.testing.assert_close(utils.lm_cross_entropy_loss(logits, tokens), loss)


def test_without_gradients(model, tokens):
    with torch.set_grad_enabled(False):
        _, cache = model.run_with_cache(tokens)
        assert not model(tokens).requires_grad and not any(value.requires_grad for value in cache.values())
        assert not cache.stack_head_results().requires_grad


def test_gradients_by_hooks(model, tokens):
    grads = {}

    def keep(gradient, hook):
        grads[hook.name] = gradient.detach().clone()

    name = "blocks.1.hook_resid_pre"
    with model.hooks(fwd_hooks=[], bwd_hooks=[(name, keep)]):
        model(tokens, return_type="loss").backward()
    _, cache = model.run_with_cache(tokens, return_type="loss", incl_bwd=True)
    torch.testing.assert_close(cache[name + "_grad"], grads[name])
    # Attribution patching: a step along the gradient changes the loss by their product, to first order.
    step = 1e-3 * torch.randn_like(grads[name])
    loss = model(tokens, return_type="loss")
    moved = model.run_with_hooks(tokens, return_type="loss", fwd_hooks=[(name, lambda value, hook: value + step)])
    torch.testing.assert_close(moved - loss, (step * grads[name]).sum(), atol=2e-4, rtol=0.05)


def test_looks(capsys):
    model = make_model(tokenizer=make_tokenizer(), n_ctx=80)
    utils.test_prompt("a b c", "d", model, prepend_space_to_answer=False)
    assert "Rank: " in capsys.readouterr().out
    assert evals.sanity_check(model) > 0


def test_names_at_the_top():
    names = ["EasyTransformer", "HookPoint", "HookedRootModule", "SVDInterpreter", "patching", "train", "head_detector"]
    assert all(name in vars(transformer_lens) for name in names)
    assert isinstance(
        HookedTransformer(HookedTransformerConfig.from_dict(make_model().cfg.to_dict())).hook_embed, HookPoint
    )
    assert transformer_lens.ActivationCache is ActivationCache
