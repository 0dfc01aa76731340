"""The root of hook points: names, contexts, caches, and what clients do to them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from transformer_lens.caching_hook import position_axis
from transformer_lens.hook_points import HookPoint
from transformer_lens.HookedRootModule import HookedRootModule
from transformer_lens.utilities.slice import Slice

BATCH, POS, HEADS, WIDTH = 2, 5, 3, 4


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.hook_q = HookPoint()
        self.hook_pattern = HookPoint()
        self.hook_out = HookPoint()

    def forward(self, x):
        q = self.hook_q(x.unflatten(-1, (HEADS, WIDTH)) * 1)
        pattern = self.hook_pattern(torch.einsum("bqhd,bkhd->bhqk", q, q))
        return self.hook_out(x * pattern.mean())


class Model(HookedRootModule):
    def __init__(self):
        super().__init__()
        self.hook_in = HookPoint()
        self.hook_length = HookPoint()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.hook_tokens = HookPoint()
        self.setup()

    def forward(self, x, *, scalar=False):
        self.hook_tokens(x[..., 0])
        self.hook_length(x.new_tensor(float(x.shape[1])))
        x = self.hook_in(x)
        for block in self.blocks:
            x = block(x)
        return x.sum() if scalar else x


NAMES = ["hook_in", "hook_length"]
NAMES += [f"blocks.{i}.hook_{name}" for i in range(2) for name in ("q", "pattern", "out")] + ["hook_tokens"]


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(BATCH, POS, HEADS * WIDTH)


def zero(tensor, hook):
    return torch.zeros_like(tensor)


def handles(model):
    return {name: len(found) for name, found in model.list_hooks().items()}


def test_setup_names_points_by_their_paths(model):
    assert list(model.hook_dict) == NAMES
    assert all(point.name == name for name, point in model.hook_dict.items())
    assert list(model.hook_points()) == list(model.hook_dict.values())
    assert type(model.hook_dict) is dict and type(model.mod_dict) is dict
    assert model.mod_dict["blocks.1"] is model.blocks[1] and model.blocks[1].name == "blocks.1"


def test_setup_follows_what_clients_put_in(model, x):
    class Spliced(HookedRootModule):
        def __init__(self):
            super().__init__()
            self.hook_inner = HookPoint()

        def forward(self, x):
            return self.hook_inner(x) + 1

    plain = model(x)
    model.hook_in = Spliced()
    model.blocks[0].hook_out.hook_child = HookPoint()
    old = model.hook_dict
    model.setup()
    assert "hook_in" not in model.hook_dict and "hook_in" in old
    assert model.hook_dict["blocks.0.hook_out.hook_child"].layer() == 0
    cache = model.run_with_cache(x)[1]
    assert torch.equal(cache["hook_in.hook_inner"], x)
    with pytest.raises(KeyError, match="is a Spliced, not a hook point"):
        model.add_hook("hook_in", zero)
    model.hook_in = HookPoint()
    model.setup()
    model.setup()
    assert torch.equal(model(x), plain) and "hook_in.hook_inner" not in model.hook_dict


def test_an_unknown_name_is_refused_with_the_nearest(model, x):
    with pytest.raises(KeyError, match=r"blocks\.1\.hook_q"):
        model.add_hook("block.1.hook_q", zero)
    with pytest.raises(KeyError):
        model.run_with_hooks(x, fwd_hooks=[("hook_in", zero), ("nowhere", zero)])
    assert handles(model) == {} and model.context_level == 0


def test_hooks_by_name_and_by_predicate(model, x):
    assert model.run_with_hooks(x, fwd_hooks=[("hook_in", zero)]).eq(0).all()
    seen = []
    model.run_with_hooks(x, fwd_hooks=[(lambda name: name.endswith("_q"), lambda t, hook: seen.append(hook.name))])
    assert seen == ["blocks.0.hook_q", "blocks.1.hook_q"]
    assert handles(model) == {}


def test_nested_contexts_remove_their_own_hooks(model, x):
    model.add_perma_hook("hook_in", zero)
    model.add_hook("hook_in", zero)
    with model.hooks(fwd_hooks=[("hook_in", zero)]) as outer:
        assert outer is model
        with model.hooks(fwd_hooks=[("hook_in", zero), ("hook_in", zero)], bwd_hooks=[("hook_in", zero)]):
            assert handles(model) == {"hook_in": 6}
            assert [handle.context_level for handle in model.hook_in.fwd_hooks] == [None, None, 1, 2, 2]
        assert handles(model) == {"hook_in": 3}
        with model.hooks(fwd_hooks=[("hook_in", zero)], reset_hooks_end=False):
            pass
        assert handles(model) == {"hook_in": 4}
    assert handles(model) == {"hook_in": 3}
    assert {name: len(found) for name, found in model.list_hooks("hook_in", "fwd", False).items()} == {"hook_in": 2}
    model.reset_hooks()
    assert handles(model) == {"hook_in": 1}
    model.reset_hooks(including_permanent=True)
    assert handles(model) == {}


def test_an_error_in_the_block_removes_the_hooks_too(model, x):
    with pytest.raises(ZeroDivisionError), model.hooks(fwd_hooks=[("hook_in", zero)]):
        raise ZeroDivisionError
    assert handles(model) == {} and model.context_level == 0


def test_contexts_are_cleared_when_asked(model, x):
    def keep(tensor, hook):
        hook.ctx["kept"] = tensor

    model.run_with_hooks(x, fwd_hooks=[("hook_in", keep)])
    assert model.hook_in.ctx
    model.reset_hooks(clear_contexts=False)
    assert model.hook_in.ctx
    model.run_with_hooks(x, fwd_hooks=[("hook_in", keep)], clear_contexts=True)
    assert not model.hook_in.ctx


def test_hooks_may_reset_and_add_while_they_run(model, x):
    def reset(tensor, hook):
        model.reset_hooks()
        model.add_hook("blocks.1.hook_out", zero)

    assert model.run_with_hooks(x, fwd_hooks=[("blocks.0.hook_q", reset)]).eq(0).all()
    assert handles(model) == {"blocks.1.hook_out": 1}


def test_a_subclass_can_refuse_hooks_added_by_name(x):
    class Strict(Model):
        def check_hooks_to_add(self, hook_point, hook_point_name, hook, dir="fwd", is_permanent=False, prepend=False):
            assert hook_point_name != "hook_in", "never runs"

    model = Strict()
    with pytest.raises(AssertionError, match="never runs"):
        model.add_hook("hook_in", zero)
    assert "hook_in" in model.run_with_cache(x)[1]


def test_cache_of_everything(model, x):
    out, cache = model.run_with_cache(x)
    assert sorted(cache) == sorted(NAMES) and type(cache) is dict
    assert torch.equal(out, cache["blocks.1.hook_out"])
    assert handles(model) == {} and not model.is_caching


@pytest.mark.parametrize(
    ("names_filter", "expected"),
    [
        ("hook_in", ["hook_in"]),
        (["hook_in", "blocks.1.hook_q", "no such name"], ["hook_in", "blocks.1.hook_q"]),
        (lambda name: "pattern" in name, ["blocks.0.hook_pattern", "blocks.1.hook_pattern"]),
        ([], []),
    ],
)
def test_cache_of_some(model, x, names_filter, expected):
    assert list(model.run_with_cache(x, names_filter=names_filter)[1]) == expected


def test_cached_tensors_carry_no_graph_and_the_model_runs_as_ever(model, x):
    x.requires_grad_()
    out, cache = model.run_with_cache(x, device="cpu")
    assert torch.equal(out, model(x)) and out.requires_grad
    assert not any(value.requires_grad for value in cache.values())


def test_gradients_are_those_of_autograd(model, x):
    x.requires_grad_()
    _, cache = model.run_with_cache(x, incl_bwd=True, scalar=True)
    gradients = {name for name in cache if name.endswith("_grad")}
    assert gradients == {f"{name}_grad" for name in NAMES if name not in ("hook_length",) and "tokens" not in name}
    assert torch.allclose(cache["hook_in_grad"], torch.autograd.grad(model(x, scalar=True), x)[0])
    assert torch.equal(cache["blocks.1.hook_out_grad"], torch.ones_like(x))


@given(st.integers(0, POS - 1), st.integers(1, POS), st.integers(1, 2), st.booleans())
def test_a_slice_of_positions_is_that_slice_of_each_activation(start, stop, step, remove_batch_dim):
    model, x = Model(), torch.randn(BATCH, POS, HEADS * WIDTH)
    whole = model.run_with_cache(x)[1]
    some = model.run_with_cache(x, pos_slice=(start, stop, step), remove_batch_dim=remove_batch_dim)[1]
    for name, value in whole.items():
        if name == "hook_length":
            continue
        value = Slice((start, stop, step)).apply(value, dim=position_axis(model.hook_dict[name], value.dim()))
        assert torch.equal(some[name], value[0] if remove_batch_dim else value), name
    assert some["blocks.0.hook_q"].shape[-3] == some["hook_in"].shape[-2] == some["blocks.0.hook_pattern"].shape[-2]


def test_one_position_keeps_its_axis(model, x):
    cache = model.run_with_cache(x, pos_slice=-1)[1]
    assert cache["hook_in"].shape == (BATCH, 1, HEADS * WIDTH)
    assert torch.equal(cache["hook_length"], torch.tensor(float(POS)))


def test_caching_hooks_stay_until_reset(model, x):
    cache = model.add_caching_hooks(["hook_in"], incl_bwd=True)
    x.requires_grad_()
    model(x, scalar=True).backward()
    assert list(cache) == ["hook_in", "hook_in_grad"] and model.is_caching
    model.reset_hooks()
    assert not model.is_caching and handles(model) == {}


def test_deprecated_ways_to_cache(model, x, caplog):
    everything, some = {}, {}
    model.cache_all(everything)
    model.cache_some(some, lambda name: name == "hook_in", remove_batch_dim=True)
    model(x)
    assert len(everything) == len(NAMES) and some["hook_in"].shape == x.shape[1:]
    assert "deprecated" in caplog.text


def test_caching_hooks_fill_a_given_dict(model, x):
    mine = {}
    cache, fwd, bwd = model.get_caching_hooks("hook_in", incl_bwd=True, cache=mine)
    assert cache is mine and [name for name, _ in fwd + bwd] == ["hook_in", "hook_in"]
    model.run_with_hooks(x, fwd_hooks=fwd)
    assert torch.equal(mine["hook_in"], x)


def test_backward_hooks_of_a_run_work_after_it(model, x):
    seen = []
    x.requires_grad_()
    out = model.run_with_hooks(x, scalar=True, bwd_hooks=[("hook_in", lambda g, hook: seen.append(hook.name))])
    assert handles(model) == {}
    out.backward()
    assert seen == ["hook_in"]


def test_a_model_that_fills_the_dicts_itself(x):
    """As a proxy around a foreign model does, which has no attribute paths to read the names from."""

    class Proxy(HookedRootModule):
        def __init__(self):
            super().__init__()
            self.inner = HookPoint()
            self.inner.name = "layer.0"
            self.mod_dict["layer.0"] = self.hook_dict["layer.0"] = self.inner

        def forward(self, x, stop_at_layer=None):
            return self.inner(x), stop_at_layer

    (_, stop), cache = Proxy().run_with_cache(x, names_filter=["layer.0"], stop_at_layer=1)
    assert stop == 1 and torch.equal(cache["layer.0"], x)


@pytest.mark.parametrize(
    ("name", "dims", "axis"),
    [
        ("blocks.0.attn.hook_z", 4, 1),
        ("blocks.0.attn.hook_rot_k", 4, 1),
        ("blocks.0.hook_q_input", 4, 1),
        ("blocks.0.attn.hook_pattern", 4, 2),
        ("blocks.0.hook_resid_pre", 3, 1),
        ("hook_tokens", 2, 1),
    ],
)
def test_where_the_positions_are_of_a_point_that_declares_no_axes(name, dims, axis):
    point = HookPoint()
    point.name = name
    assert position_axis(point, dims) == axis


@pytest.mark.parametrize(
    ("axes", "dims", "axis"),
    [
        ("batch pos head d_head", 4, 1),
        ("batch head query_pos key_pos", 4, 2),
        ("batch pos ... length", 3, 1),
        ("batch pos ... length", 4, 1),
        ("batch pos", 2, 1),
        ("width pos", 2, 1),
    ],
)
def test_where_the_positions_are_is_what_the_point_declares_whatever_its_name(axes, dims, axis):
    for name in ("hook_z", "hook_scale", "hook_tokens", None):
        point = HookPoint(axes)
        point.name = name
        assert position_axis(point, dims) == axis
