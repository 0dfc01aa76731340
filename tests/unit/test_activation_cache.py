"""Whatever takes the residual stream apart sums to it, and what slices, norms and projects commutes with the sum."""

import pytest
import torch

from tests.unit.small_transformers import KINDS, make_model, make_tokens
from transformer_lens.ActivationCache import ActivationCache, Slice

EVERY_KIND = pytest.mark.parametrize("kind", sorted(KINDS))
WITH_MLP = pytest.mark.parametrize("kind", sorted(set(KINDS) - {"attn_only"}))
POSITIONS = pytest.mark.parametrize("pos_slice", [None, -1, (1, 3), [0, 2]], ids=str)
INPUTS = [(0, False), (0, True), (1, False), (2, True), (3, False), (-1, False), (None, False)]


def close(actual, expected):
    scale = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
    torch.testing.assert_close(actual, expected, atol=1e-10 * scale, rtol=0)


def run(kind="gpt2", remove_batch_dim=False, **changes):
    """A model in double precision, its logits and its cache."""
    model = make_model(kind, dtype=torch.float64, **changes)
    tokens = make_tokens(batch=1 if remove_batch_dim else 4)
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens, remove_batch_dim=remove_batch_dim)
    return model, logits, cache


def stream(cache, layer, mlp_input):
    """What is read by a layer's attention, by its MLP, or by the unembedding."""
    if layer in (None, -1, 3):
        return cache["resid_post", 2]
    if mlp_input and not cache.model.cfg.parallel_attn_mlp:
        return cache["resid_pre", layer] + cache["attn_out", layer]
    return cache["resid_pre", layer]


def norm_of(model, layer, mlp_input):
    if layer in (None, -1, 3):
        return model.ln_final
    return model.blocks[layer].ln2 if mlp_input else model.blocks[layer].ln1


def inputs(model):
    return [(layer, mlp_input) for layer, mlp_input in INPUTS if not (mlp_input and model.cfg.attn_only)]


@EVERY_KIND
@pytest.mark.parametrize("remove_batch_dim", [False, True])
def test_decompositions_sum_to_the_stream(kind, remove_batch_dim):
    model, _, cache = run(kind, remove_batch_dim)
    for layer, mlp_input in inputs(model):
        whole = stream(cache, layer, mlp_input)
        close(cache.decompose_resid(layer, mlp_input).sum(0), whole)
        for expand_neurons in (True, False):
            stack, labels = cache.get_full_resid_decomposition(layer, mlp_input, expand_neurons, return_labels=True)
            assert len(stack) == len(labels) == len(set(labels)) and stack.shape[1:] == whole.shape
            close(stack.sum(0), whole)
        if not mlp_input:
            close(cache.stack_head_results(-1 if layer is None else layer, incl_remainder=True).sum(0), whole)


@EVERY_KIND
def test_heads_and_neurons_sum_to_their_layer(kind):
    model, _, cache = run(kind)
    results = cache.stack_head_results()
    cache.compute_head_results()
    for index, block in enumerate(model.blocks):
        attn_out = cache["result", index].sum(-2) + block.attn.b_O
        if kind == "sandwich":
            attn_out = block.ln1_post(attn_out)
        else:
            close(results[6 * index : 6 * index + 6].sum(0) + block.attn.b_O, cache["attn_out", index])
        close(attn_out, cache["attn_out", index])
        if not model.cfg.attn_only:
            mlp_out = cache.get_neuron_results(index).sum(-2) + block.mlp.b_out
            close(block.ln2_post(mlp_out) if kind == "sandwich" else mlp_out, cache["mlp_out", index])
    torch.testing.assert_close(cache.stack_head_results(), results)


@EVERY_KIND
def test_norms_act_on_components(kind):
    model, _, cache = run(kind)
    for layer, mlp_input in inputs(model):
        stack = cache.decompose_resid(layer, mlp_input)
        read = cache.decompose_resid(layer, mlp_input, apply_ln=True)
        close(read, cache.apply_ln_to_stack(stack, layer, mlp_input))
        whole, norm = stream(cache, layer, mlp_input), None
        if model.cfg.normalization_type is None:
            close(read.sum(0), whole)
            continue
        norm = norm_of(model, layer, mlp_input)
        parameters = dict(norm.named_parameters())
        close(read.sum(0) * parameters.get("w", 1.0) + parameters.get("b", 0.0), norm(whole))
        alone = cache.apply_ln_to_stack(stack, layer, mlp_input, recompute_ln=True)
        close(alone[-1], norm(stack[-1]))
        close(cache.accumulated_resid(layer, mlp_input=mlp_input, apply_ln=True)[-1], read.sum(0))


@pytest.mark.parametrize("kind", ["folded", "no_norm", "llama_folded", "llama_behind_layer_norm", "sandwich_folded"])
def test_attributions_sum_to_logits(kind):
    changes = {
        "llama_folded": ("llama_gqa", {"normalization_type": "RMSPre"}),
        "llama_behind_layer_norm": ("folded", {"final_rms": True}),
        "sandwich_folded": ("sandwich", {"normalization_type": "RMSPre"}),
    }
    kind, changed = changes.get(kind, (kind, {}))
    model, logits, cache = run(kind, **changed)
    tokens, others = make_tokens(seed=5), make_tokens(seed=6)
    right = logits.gather(-1, tokens[..., None])[..., 0] - model.b_U[tokens]
    wrong = logits.gather(-1, others[..., None])[..., 0] - model.b_U[others]
    stack = cache.get_full_resid_decomposition()
    close(cache.logit_attrs(stack, tokens).sum(0), right)
    close(cache.logit_attrs(stack, tokens, incorrect_tokens=others).sum(0), right - wrong)
    close(cache.logit_attrs(stack[:, :, -1], tokens[:, -1], pos_slice=-1).sum(0), right[:, -1])
    close(cache.logit_attrs(stack, 5).sum(0), logits[..., 5] - model.b_U[5])
    close(cache.logit_attrs(stack, torch.tensor(5), 6), cache.logit_attrs(stack, 5) - cache.logit_attrs(stack, 6))
    rows = [2, 0]
    close(cache.logit_attrs(stack, tokens[rows], batch_slice=rows).sum(0), right[rows])
    close(cache.logit_attrs(stack[:, rows], tokens[rows], batch_slice=rows, has_batch_dim=False).sum(0), right[rows])
    unbatched = cache.apply_slice_to_batch_dim(1)
    close(unbatched.logit_attrs(stack[:, 1], tokens[1]).sum(0), right[1])
    with pytest.raises(ValueError, match="the same"):
        cache.logit_attrs(stack, tokens, 5)


@pytest.mark.parametrize("kind", ["gpt2", "no_norm", "llama_gqa", "parallel_rotary", "attn_only", "sandwich"])
@POSITIONS
@pytest.mark.parametrize("apply_ln", [False, True])
def test_slices_commute(kind, pos_slice, apply_ln):
    _, _, cache = run(kind)
    kept = {"pos_slice": pos_slice, "apply_ln": apply_ln}

    def check(method, *args, **kwargs):
        whole, labels = method(*args, apply_ln=apply_ln, return_labels=True, **kwargs)
        part, same_labels = method(*args, **kept, return_labels=True, **kwargs)
        assert labels == same_labels
        close(part, Slice(pos_slice).apply(whole, dim=-2))
        unbatched = getattr(cache.apply_slice_to_batch_dim(2), method.__name__)(*args, **kept, **kwargs)
        close(unbatched, part[:, 2])

    for layer in (1, 3):
        check(cache.accumulated_resid, layer)
        check(cache.decompose_resid, layer)
        check(cache.get_full_resid_decomposition, layer, expand_neurons=False)
        check(cache.stack_head_results, layer, incl_remainder=True)
        if kind != "attn_only":
            check(cache.stack_neuron_results, layer, neuron_slice=[3, 1], incl_remainder=True)


@WITH_MLP
@pytest.mark.parametrize("apply_ln", [False, True])
@pytest.mark.parametrize("outputs", [(), (2,)], ids=["direction", "directions"])
def test_projections_commute(kind, apply_ln, outputs):
    _, _, cache = run(kind)
    onto = torch.randn(14, *outputs, dtype=torch.float64)
    for pos_slice in (None, -1):
        arguments = {"pos_slice": pos_slice, "apply_ln": apply_ln}
        for method, more in (
            (cache.stack_neuron_results, {"layer": 2, "incl_remainder": True, "neuron_slice": (0, 5)}),
            (cache.get_full_resid_decomposition, {"layer": 2}),
            (cache.get_full_resid_decomposition, {"expand_neurons": False}),
        ):
            close(method(**arguments, **more, project_output_onto=onto), method(**arguments, **more) @ onto)
        plain = cache.get_neuron_results(1, [4, 2], pos_slice)
        close(cache.get_neuron_results(1, [4, 2], pos_slice, project_output_onto=onto), plain @ onto)


def test_labels_name_their_components():
    model, _, cache = run(use_attn_result=True)
    stack, labels = cache.get_full_resid_decomposition(return_labels=True)
    named = dict(zip(labels, stack, strict=True))
    assert labels[0] == "L0H0" and labels[18] == "L0N0" and labels[-3:] == ["embed", "pos_embed", "bias"]
    close(named["L1H4"], cache["result", 1][:, :, 4])
    close(named["L2N7"], cache["post", 2][..., 7, None] * model.blocks[2].mlp.W_out[7])
    close(named["pos_embed"], cache["pos_embed"])
    stack, labels = cache.decompose_resid(2, return_labels=True)
    assert labels == ["embed", "pos_embed", "0_attn_out", "0_mlp_out", "1_attn_out", "1_mlp_out"]
    assert cache.decompose_resid(1, True, return_labels=True)[1][-1] == "1_attn_out"
    assert cache.decompose_resid(1, True, "mlp", incl_embeds=False, return_labels=True)[1] == ["0_mlp_out"]
    assert cache.decompose_resid(2, mode="attn", incl_embeds=False, return_labels=True)[1] == [
        "0_attn_out",
        "1_attn_out",
    ]
    streams, labels = cache.accumulated_resid(incl_mid=True, return_labels=True)
    assert labels == ["0_pre", "0_mid", "1_pre", "1_mid", "2_pre", "2_mid", "final_post"]
    close(streams[3], cache["resid_mid", 1])
    assert cache.accumulated_resid(1, mlp_input=True, return_labels=True)[1] == ["0_pre", "1_pre", "1_mid"]
    _, labels = cache.stack_neuron_results(2, neuron_slice=3, incl_remainder=True, return_labels=True)
    assert labels == ["L0N3", "L1N3", "remainder"]
    assert "pos_embed" not in run("shortformer")[2].decompose_resid(return_labels=True)[1]


def test_nothing_before_the_first_layer():
    _, _, cache = run()
    assert cache.stack_head_results(0).shape == (0, 4, 7, 14)
    assert cache.stack_neuron_results(0, pos_slice=-1).shape == (0, 4, 14)
    assert cache.stack_neuron_results(0, project_output_onto=torch.randn(14, 3).double()).shape == (0, 4, 7, 3)
    assert cache.decompose_resid(0, incl_embeds=False).shape == (0, 4, 7, 14)
    assert cache.stack_activation("pattern", 0).shape == (0, 4, 6, 7, 7)
    close(cache.stack_head_results(0, incl_remainder=True)[0], cache["resid_pre", 0])


@pytest.mark.parametrize("layer", [-2, 4])
def test_a_layer_that_is_not_there(layer):
    _, _, cache = run()
    with pytest.raises(ValueError, match="0 to 3"):
        cache.decompose_resid(layer)
    with pytest.raises(ValueError, match="no MLP"):
        cache.decompose_resid(3, mlp_input=True)


def test_keys():
    model, _, cache = run()
    names = list(cache)
    assert len(cache) == len(names) == len(cache.keys()) == len(cache.values()) == len(dict(cache.items()))
    assert names[0] == "hook_embed" and "hook_embed" in cache and "embed" not in cache and ("k", 0) not in cache
    pattern = cache["blocks.2.attn.hook_pattern"]
    for key in [("pattern", 2), ("pattern", 2, "attn"), ("pattern", -1), "pattern2"]:
        assert cache[key] is pattern
    assert cache["scale", 1, "ln2"] is cache["blocks.1.ln2.hook_scale"]
    assert cache["scale"] is cache["ln_final.hook_scale"] and cache["embed"] is cache["hook_embed"]
    assert cache.has_embed and cache.has_pos_embed and cache.has_batch_dim and cache.model is model
    assert repr(cache) == f"ActivationCache with keys {names}"
    with pytest.raises(KeyError, match="blocks.5.attn.hook_k.*nearest: blocks"):
        cache["k", 5]
    close(cache.stack_activation("scale", 2, "ln1")[1], cache["scale", 1, "ln1"])


def test_rows():
    _, _, cache = run()
    with pytest.raises(AssertionError, match="4 rows"):
        cache.remove_batch_dim()
    one = cache.apply_slice_to_batch_dim([2])
    assert type(one) is ActivationCache and one.has_batch_dim and one["k", 0].shape == (1, 7, 6, 8)
    assert one.remove_batch_dim() is one and not one.has_batch_dim
    assert one.remove_batch_dim() is one
    two = cache.apply_slice_to_batch_dim(2)
    assert not two.has_batch_dim and all(torch.equal(one[name], two[name]) for name in cache)
    with pytest.raises(AssertionError, match="no batch dimension"):
        two.apply_slice_to_batch_dim(0)
    assert len(cache["k", 0]) == 4 and cache.apply_slice_to_batch_dim((1, 3))["k", 0].shape[0] == 2


def test_devices_and_gradients():
    model, _, cache = run()
    values = list(cache.values())
    with pytest.warns(DeprecationWarning, match="move_model"):
        assert cache.to("meta", move_model=True) is cache
    assert model.W_U.is_meta and all(value.is_meta for value in cache.values())
    assert not any(value.is_meta for value in values)
    try:
        cache.toggle_autodiff()
        assert not torch.is_grad_enabled()
    finally:
        cache.toggle_autodiff(True)
    _, _, cache = run()
    model = cache.model
    cache.get_full_resid_decomposition(apply_ln=True, expand_neurons=True).pow(2).sum().backward()
    for block in model.blocks:
        assert block.attn.W_O.grad.abs().min() > 0 and block.mlp.W_out.grad.abs().min() > 0


def test_a_scale_for_each_head():
    _, _, cache = run("split_qkv")
    stack = cache.decompose_resid(1)
    expected = stack - stack.mean(-1, keepdim=True)
    close(cache.apply_ln_to_stack(stack, 1), expected / cache["scale", 1, "ln1"][..., 0, :])
    cache.cache_dict["blocks.1.ln1.hook_scale"] = cache["scale", 1, "ln1"] * torch.arange(1.0, 7.0)[:, None]
    with pytest.raises(ValueError, match="another scale for each head"):
        cache.apply_ln_to_stack(stack, 1)


def test_half_precision():
    model = make_model("llama_gqa", dtype=torch.bfloat16)
    with torch.no_grad():
        _, cache = model.run_with_cache(make_tokens())
    stack = cache.get_full_resid_decomposition(expand_neurons=False)
    assert stack.dtype == torch.bfloat16
    attributions = cache.logit_attrs(stack, make_tokens())
    normed = cache.apply_ln_to_stack(stack)
    assert attributions.dtype == normed.dtype == torch.float32
    expected = (normed * model.tokens_to_residual_directions(make_tokens())).sum(-1)
    torch.testing.assert_close(attributions, expected, atol=1e-4, rtol=1e-4)


def test_in_front_of_the_unembedding_no_mlp_reads():
    _, _, cache = run()
    for layer in (3, -1, None):
        stack, labels = cache.accumulated_resid(layer, mlp_input=True, return_labels=True)
        assert labels == ["0_pre", "1_pre", "2_pre", "final_post"]
        assert torch.equal(stack, cache.accumulated_resid(layer))
