"""One hook point: order, lifetimes, gradients, and when it counts as doing nothing."""

import copy

import pytest
import torch
from torch import nn

from transformer_lens.hook_points import HookedRootModule, HookPoint, LensHandle, ReadingHook, Slice, accepts, is_plain


@pytest.fixture
def point() -> HookPoint:
    made = HookPoint()
    made.name = "blocks.3.attn.hook_z"
    return made


def times(factor):
    def hook(tensor, hook):
        return tensor * factor

    return hook


def plus(term):
    def hook(tensor, hook):
        return tensor + term

    return hook


def test_passes_the_tensor_itself_on(point):
    x = torch.randn(2, 3, requires_grad=True)
    assert point(x) is x


def test_hooks_see_what_the_one_before_returned(point):
    point.add_hook(times(2))
    point.add_hook(plus(1))
    point.add_hook(lambda tensor, hook: None)
    point.add_hook(times(10), prepend=True)
    assert point(torch.ones(1)).item() == 21
    assert [handle.user_hook for handle in point.fwd_hooks[1:3]] != [None, None]


def test_hooks_get_the_point_and_may_write_into_the_tensor(point):
    def hook(tensor, hook):
        assert hook is point
        hook.ctx["seen"] = True
        tensor[:, 0] = 7

    point.add_hook(hook)
    x = torch.zeros(2, 3)
    assert point(x)[:, 0].eq(7).all() and x.eq(0).all()
    assert point.ctx == {"seen": True}
    before = point.ctx
    point.clear_context()
    assert point.ctx == {} and before == {"seen": True}


class Looking(ReadingHook):
    def __init__(self):
        self.seen = []

    def __call__(self, tensor, *, hook):
        self.seen.append(tensor)


def test_a_hook_that_only_reads_costs_no_copy_and_keeps_what_it_saw(point):
    """Also where one behind it writes: what it was given is not written to."""
    before, behind = Looking(), Looking()
    x = torch.zeros(2, 3)
    point.add_hook(before)
    assert point(x) is x and before.seen[0] is x
    point.add_hook(lambda tensor, hook: tensor.fill_(7) * 0)
    point.add_hook(behind)
    out = point(x)
    assert before.seen[1] is x and x.eq(0).all()
    assert behind.seen[0] is out and out.eq(0).all()


def test_hooks_write_into_one_copy(point):
    seen = []

    def hook(tensor, hook):
        tensor += 1
        seen.append(tensor)

    point.add_hook(hook)
    point.add_hook(hook)
    x = torch.zeros(1)
    assert point(x).item() == 2 and x.item() == 0 and seen[0] is seen[1]


def test_a_hook_may_write_into_a_gradient_whoever_else_has_it(point):
    """A sum gives both of its terms one gradient; a sum over everything gives one number, expanded."""

    def halve(gradient, hook):
        gradient *= 0.5

    point.add_hook(halve, dir="bwd")
    x, y = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    (point(x) + y).sum().backward()
    assert x.grad.tolist() == [0.5, 0.5] and y.grad.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("saved", [torch.sqrt, torch.relu, torch.exp, lambda x: x.softmax(-1)])
def test_a_hook_may_write_into_what_autograd_has_saved(point, saved):
    def double(tensor, hook):
        tensor *= 2

    x = torch.rand(3, requires_grad=True)
    expected = torch.autograd.grad(saved(x).square().sum() * 4, x)[0]
    point.add_hook(double)
    torch.testing.assert_close(torch.autograd.grad(point(saved(x)).square().sum(), x)[0], expected)


def test_removal_by_lifetime_direction_and_level(point):
    for permanent, level in ((True, None), (False, 1), (False, 2), (False, None)):
        point.add_hook(times(1), is_permanent=permanent, level=level)
    point.add_perma_hook(times(1), dir="bwd")
    point.add_hook(times(1), dir="bwd")

    def left():
        return [(handle.is_permanent, handle.context_level) for handle in point.fwd_hooks], len(point.bwd_hooks)

    point.remove_hooks("fwd", level=2)
    assert left() == ([(True, None), (False, 1), (False, None)], 2)
    assert point.has_hooks("fwd", including_permanent=False, level=1) and not point.has_hooks(level=2)
    point.remove_hooks("both")
    assert left() == ([(True, None)], 1)
    assert point.has_hooks() and not point.has_hooks(including_permanent=False)
    point.remove_hooks("both", including_permanent=True)
    assert left() == ([], 0) and not point.has_hooks() and is_plain(point)


def test_hooks_may_be_added_and_removed_while_they_run(point):
    seen = []

    def first(tensor, hook):
        seen.append("first")
        hook.remove_hooks("both", including_permanent=True)
        hook.add_hook(lambda tensor, hook: seen.append("added"))

    point.add_hook(first, is_permanent=True)
    point.add_hook(lambda tensor, hook: seen.append("second"))
    point(torch.zeros(1))
    assert seen == ["first", "second"]
    point(torch.zeros(1))
    assert seen == ["first", "second", "added"]


def test_gradient_hooks_see_and_replace_the_gradient(point):
    seen = []
    point.add_hook(times(3))
    point.add_hook(lambda gradient, hook: seen.append((gradient.clone(), hook)), dir="bwd")
    point.add_hook(times(5), dir="bwd")
    point.add_hook(lambda gradient, hook: (gradient * 2,), dir="bwd")
    x = torch.ones(2, requires_grad=True)
    (point(x) * torch.tensor([1.0, 4.0])).sum().backward()
    assert seen[0][0].tolist() == [1.0, 4.0] and seen[0][1] is point
    assert x.grad.tolist() == [30.0, 120.0]


def test_gradient_hooks_run_for_every_backward_also_once_removed(point):
    seen = []
    point.add_hook(lambda gradient, hook: seen.append(gradient.sum().item()), dir="bwd")
    out = point(torch.ones(2, requires_grad=True)).sum()
    point.remove_hooks("both")
    out.backward(retain_graph=True)
    out.backward()
    assert seen == [2.0, 2.0]
    with torch.no_grad():
        point.add_hook(times(0), dir="bwd")
        x = torch.ones(2, requires_grad=True)
        assert point(x) is x


def test_each_of_two_points_on_one_tensor_sees_its_own_gradient():
    """What passes two points is one tensor; the second's replacement must reach the first, and no other branch."""
    first, second = HookPoint(), HookPoint()
    seen = []
    first.add_hook(lambda gradient, hook: seen.append(gradient.item()), dir="bwd")
    second.add_hook(times(10), dir="bwd")
    x = torch.ones(1, requires_grad=True)
    after_first = first(x)
    (second(after_first) + after_first).sum().backward()
    assert seen == [11.0] and x.grad.item() == 11.0


def test_a_hook_can_write_in_place_where_another_watches_the_gradient(point):
    def ablate(tensor, hook):
        tensor[:, 0] = 0

    point.add_hook(ablate)
    point.add_hook(lambda gradient, hook: None, dir="bwd")
    x = torch.ones(2, 3, requires_grad=True)
    point(x * 1).sum().backward()
    assert x.grad.tolist() == [[0, 1, 1]] * 2


def test_a_hook_can_make_a_leaf_require_gradients(point):
    def require(tensor, hook):
        tensor.requires_grad = True

    seen = []
    point.add_hook(require)
    point.add_hook(lambda gradient, hook: seen.append(gradient), dir="bwd")
    point(torch.ones(2)).sum().backward()
    assert len(seen) == 1


class Doubling(HookPoint):
    def forward(self, x):
        return 2 * x


def with_instance_forward():
    point = HookPoint()
    point.forward = lambda x: x
    return point


def with_torch_hook(register):
    point = HookPoint()
    getattr(point, register)(lambda *args: None)
    return point


def with_hook(dir):
    point = HookPoint()
    point.add_hook(times(1), dir=dir)
    return point


@pytest.mark.parametrize(
    "make",
    [
        nn.Identity,
        Doubling,
        with_instance_forward,
        lambda: with_hook("fwd"),
        lambda: with_hook("bwd"),
        lambda: with_torch_hook("register_forward_hook"),
        lambda: with_torch_hook("register_forward_pre_hook"),
        lambda: with_torch_hook("register_full_backward_hook"),
        lambda: with_torch_hook("register_full_backward_pre_hook"),
    ],
)
def test_anything_but_an_idle_hook_point_is_not_plain(make):
    assert is_plain(HookPoint())
    assert not is_plain(make())


def test_a_child_leaves_a_point_plain():
    point = HookPoint()
    point.hook_out_grad = HookPoint()
    assert is_plain(point)


@pytest.mark.parametrize(
    ("name", "layer"), [("blocks.3.attn.hook_z", 3), ("blocks.0.hook_mlp_out.hook_out_grad", 0), ("encoder.11.mlp", 11)]
)
def test_reads_the_layer_off_the_name(point, name, layer):
    point.name = name
    assert point.layer() == layer


@pytest.mark.parametrize("name", ["hook_embed", "ln_final.hook_scale", None])
def test_says_when_there_is_no_layer(point, name):
    point.name = name
    with pytest.raises(ValueError, match="is in no layer"):
        point.layer()


def test_a_copy_has_hooks_of_its_own(point):
    point.add_hook(times(2))
    copied = copy.deepcopy(point)
    copied.remove_hooks("both")
    assert point(torch.ones(1)).item() == 2 and copied(torch.ones(1)).item() == 1
    assert is_plain(copied) and not is_plain(point)


def test_a_handle_takes_its_hook_off(point):
    point.add_hook(times(2))
    assert isinstance(point.fwd_hooks[0], LensHandle)
    point.fwd_hooks[0].hook.remove()
    assert point(torch.ones(1)).item() == 1


@pytest.mark.parametrize("names_filter", ["b", ["b", "d"], ("b",), lambda name: name == "b"])
def test_filters_of_every_kind(names_filter):
    assert [name for name in "abc" if accepts(names_filter)(name)] == ["b"]
    assert accepts(None)("anything")


def test_the_old_import_paths_hold():
    from transformer_lens.HookedRootModule import HookedRootModule as new
    from transformer_lens.utilities.slice import Slice as new_slice

    assert HookedRootModule is new and Slice is new_slice
    with pytest.raises(ImportError):
        from transformer_lens.hook_points import NoSuchName  # noqa: F401


@pytest.mark.parametrize("dir", ["fwd", "bwd"])
def test_a_hook_with_aliases_is_called_under_each_name(point, dir):
    seen = []

    def hook(tensor, hook):
        seen.append((hook.name, tensor.sum().item()))
        hook.ctx[hook.name] = True
        return tensor * 2

    point.add_hook(hook, dir=dir, alias_names=["a", "b"])
    x = torch.ones(3, requires_grad=True)
    out = point(x)
    out.sum().backward()
    assert seen == [("a", 3.0), ("b", 6.0)] and point.ctx == {"a": True, "b": True}
    assert (out if dir == "fwd" else x.grad).tolist() == [4.0, 4.0, 4.0]
    assert [handle.user_hook for handle in (*point.fwd_hooks, *point.bwd_hooks)] == [hook]
    point.remove_hooks("both")
    assert point(x) is x


@pytest.mark.parametrize("dir", ["fwd", "bwd"])
def test_hooks_of_a_reshaped_point_see_another_form(point, dir):
    class Heads:
        def convert(self, tensor):
            return tensor.unflatten(-1, (2, 3))

        def revert(self, tensor):
            return tensor.flatten(-2)

    def zero_first_head(tensor, hook):
        tensor[:, 0] = 0

    point.enable_reshape(Heads())
    point.add_hook(zero_first_head, dir=dir)
    x = torch.ones(4, 6, requires_grad=True)
    out = point(x)
    out.sum().backward()
    changed = out if dir == "fwd" else x.grad
    assert changed.shape == (4, 6) and changed[0].tolist() == [0, 0, 0, 1, 1, 1]
    point.enable_reshape()
    point.remove_hooks("both")
    assert point(x) is x
