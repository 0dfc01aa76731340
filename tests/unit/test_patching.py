"""Each patch puts exactly one place of the clean run in, and patching everything gives the clean run."""

import itertools

import pytest
import torch

from tests.unit.small_transformers import make_model, make_tokens
from transformer_lens import patching

CLEAN, CORRUPTED = make_tokens(batch=3, length=5, seed=1), make_tokens(batch=3, length=5, seed=2)
HEADS = {"out": "z", "q": "q", "k": "k", "v": "v"}
CLOSE = {"atol": 2e-5, "rtol": 1e-4}


def metric(logits):
    return (logits[:, -1, 5] - logits[:, -1, 7]).mean()


def run(kind="gpt2", **changes):
    model = make_model(kind, n_layers=2, **changes)
    _, cache = model.run_with_cache(CLEAN)
    return model, cache


def by_hand(model, cache, short, layer, index):
    """The metric with the clean activation at an index of the corrupted one."""

    def hook(activation, hook):
        patched = activation.clone()
        patched[index] = cache[hook.name][index]
        return patched

    with torch.no_grad():
        return metric(model.run_with_hooks(CORRUPTED, fwd_hooks=[(patching.utils.get_act_name(short, layer), hook)]))


def places(result):
    return itertools.product(*map(range, result.shape))


@pytest.mark.parametrize("name", ["resid_pre", "resid_mid", "attn_out", "mlp_out"])
def test_layers_by_position(name):
    model, cache = run()
    result = getattr(patching, f"get_act_patch_{name}")(model, CORRUPTED, cache, metric)
    assert result.shape == (2, 5) and not result.requires_grad
    for layer, pos in places(result):
        torch.testing.assert_close(result[layer, pos], by_hand(model, cache, name, layer, (slice(None), pos)), **CLOSE)


@pytest.mark.parametrize("kind", ["gpt2", "llama_gqa"])
@pytest.mark.parametrize("name", sorted(HEADS))
def test_heads(kind, name):
    model, cache = run(kind)
    n_heads = 3 if kind == "llama_gqa" and name in "kv" else 6
    everywhere = getattr(patching, f"get_act_patch_attn_head_{name}_all_pos")(model, CORRUPTED, cache, metric)
    assert everywhere.shape == (2, n_heads)
    for layer, head in places(everywhere):
        expected = by_hand(model, cache, HEADS[name], layer, (slice(None), slice(None), head))
        torch.testing.assert_close(everywhere[layer, head], expected, **CLOSE)
    by_pos = getattr(patching, f"get_act_patch_attn_head_{name}_by_pos")(model, CORRUPTED, cache, metric)
    assert by_pos.shape == (2, 5, n_heads)
    for layer, pos, head in places(by_pos[:, 2:4]):
        expected = by_hand(model, cache, HEADS[name], layer, (slice(None), pos + 2, head))
        torch.testing.assert_close(by_pos[layer, pos + 2, head], expected, **CLOSE)


def test_patterns():
    model, cache = run(n_heads=2)
    arguments = model, CORRUPTED, cache, metric
    whole = patching.get_act_patch_attn_head_pattern_all_pos(*arguments)
    rows = patching.get_act_patch_attn_head_pattern_by_pos(*arguments)
    entries = patching.get_act_patch_attn_head_pattern_dest_src_pos(*arguments)
    assert whole.shape == (2, 2) and rows.shape == (2, 2, 5) and entries.shape == (2, 2, 5, 5)
    for result in (whole, rows, entries):
        for layer, *index in places(result):
            expected = by_hand(model, cache, "pattern", layer, (slice(None), *index))
            torch.testing.assert_close(result[(layer, *index)], expected, **CLOSE)


@pytest.mark.parametrize("kind", ["gpt2", "llama_gqa"])
def test_every(kind):
    model, cache = run(kind)
    arguments = model, CORRUPTED, cache, metric
    blocks = patching.get_act_patch_block_every(*arguments)
    assert blocks.shape == (3, 2, 5)
    torch.testing.assert_close(blocks[2], patching.get_act_patch_mlp_out(*arguments))
    heads = patching.get_act_patch_attn_head_all_pos_every(*arguments)
    assert heads.shape == (5, 2, 6)
    torch.testing.assert_close(heads[0], patching.get_act_patch_attn_head_out_all_pos(*arguments))
    keys = patching.get_act_patch_attn_head_k_all_pos(*arguments)
    torch.testing.assert_close(heads[2], keys.repeat_interleave(6 // keys.shape[-1], dim=-1))
    torch.testing.assert_close(heads[4], patching.get_act_patch_attn_head_pattern_all_pos(*arguments))
    by_pos = patching.get_act_patch_attn_head_by_pos_every(*arguments)
    assert by_pos.shape == (5, 2, 5, 6)
    pattern = patching.get_act_patch_attn_head_pattern_by_pos(*arguments)
    torch.testing.assert_close(by_pos[4], pattern.transpose(1, 2))


def test_patching_everything_gives_the_clean_run():
    model, cache = run()

    def everywhere(corrupted, index, clean):
        corrupted[:] = clean
        return corrupted

    result = patching.generic_activation_patch(
        model, CORRUPTED, cache, metric, everywhere, "resid_pre", index_axis_names=["layer"]
    )
    torch.testing.assert_close(result, metric(model(CLEAN)).detach().expand(2), **CLOSE)
    _, own = model.run_with_cache(CORRUPTED)
    unchanged = patching.get_act_patch_attn_out(model, CORRUPTED, own, metric)
    torch.testing.assert_close(unchanged, metric(model(CORRUPTED)).detach().expand(2, 5), **CLOSE)
    assert not any(point.has_hooks() for point in model.hook_points())


def test_places_as_a_table():
    model, cache = run()
    arguments = model, CORRUPTED, cache, metric
    table = patching.make_df_from_ranges([2, 5], ["layer", "pos"])
    assert list(table.columns) == ["layer", "pos"] and table.values.tolist() == [
        [i, j] for i in (0, 1) for j in range(5)
    ]
    whole, same = patching.get_act_patch_resid_pre(*arguments, return_index_df=True)
    assert same.equals(table)
    some = patching.generic_activation_patch(
        *arguments, patching.layer_pos_patch_setter, "resid_pre", index_df=table.iloc[[7, 3]]
    )
    torch.testing.assert_close(some, whole.flatten()[[7, 3]])
    for wrong in ({}, {"index_df": table, "index_axis_names": ["layer", "pos"]}):
        with pytest.raises(ValueError, match="not both"):
            patching.generic_activation_patch(*arguments, patching.layer_pos_patch_setter, "resid_pre", **wrong)
