"""Layout strings: each way to lie in a file, and each way to be no layout or not to fit one."""

import einops
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transformer_lens.loading.conversion.layout import LayoutError, evaluate, make_view, parse

SIZES = {
    "head": 6, "kv_head": 3, "d_head": 5, "d_model": 7, "d_mlp": 11, "qkv": 3, "gate_up": 2, "expert": 4, "n_ctx": 13,
    "slot": 12, "kv_slot": 4, "expert_number": 4,
}  # fmt: skip


def filled(*shape: int) -> torch.Tensor:
    """Numbers that are all different."""
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


def test_parse():
    assert parse("d_vocab d_model") == (("d_vocab",), ("d_model",))
    assert parse("(head qkv d_head) d_model") == (("head", "qkv", "d_head"), ("d_model",))
    assert parse("1 n_ctx (1 d_model)") == (("1",), ("n_ctx",), ("1", "d_model"))
    assert parse("") == ()


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        ("(a (b c)) d", "inside brackets"),
        ("(a b", "open"),
        ("a b)", "holds nothing"),
        ("() a", "holds nothing"),
        ("a b a", "twice"),
        ("(a b) (c a)", "twice"),
        ("a-b", "no layout"),
        ("a 2", "no layout"),
        ("a [b]", "no layout"),
        ("a -> b", "no layout"),
    ],
)
def test_what_is_no_layout(layout, says):
    with pytest.raises(ValueError, match=says):
        parse(layout)


def test_evaluate():
    sizes = {"head": 6, "kv_head": 2}
    assert evaluate(3, sizes) == 3
    assert evaluate("head + 2 * kv_head", sizes) == 10
    assert evaluate("(head - kv_head) // 3", sizes) == 1


@pytest.mark.parametrize("expression", ["head ** 2", "len(head)", "head.real", "[1]", "1.5", "nobody", "head < 2"])
def test_what_is_no_expression(expression):
    with pytest.raises(ValueError):
        evaluate(expression, {"head": 6})


CASES = {
    "linear": ("(head d_head) d_model", "head d_model d_head", {}, lambda t: t.view(6, 5, 7).transpose(1, 2)),
    "conv1d": ("d_model (qkv head d_head)", "head d_model d_head", {"qkv": 1},
               lambda t: t[:, 30:60].view(7, 6, 5).transpose(0, 1)),
    "neox": ("(head qkv d_head) d_model", "head d_model d_head", {"qkv": 2},
             lambda t: torch.stack([t[15 * h + 10 : 15 * h + 15].T for h in range(6)])),
    "neox bias": ("(head qkv d_head)", "head d_head", {"qkv": 0},
                  lambda t: torch.stack([t[15 * h : 15 * h + 5] for h in range(6)])),
    "output": ("d_model (head d_head)", "head d_head d_model", {},
               lambda t: torch.stack([t[:, 5 * h : 5 * h + 5].T for h in range(6)])),
    "phi3 queries": ("(slot d_head) d_model", "head d_model d_head", {"slot": "0:head"},
                     lambda t: torch.stack([t[5 * h : 5 * h + 5].T for h in range(6)])),
    "phi3 keys": ("(slot d_head) d_model", "kv_head d_model d_head", {"slot": "head:head + kv_head"},
                  lambda t: torch.stack([t[5 * h : 5 * h + 5].T for h in range(6, 9)])),
    "phi3 values": ("(slot d_head) d_model", "kv_head d_model d_head", {"slot": "head + kv_head:"},
                    lambda t: torch.stack([t[5 * h : 5 * h + 5].T for h in range(9, 12)])),
    "nested slots": ("(kv_head kv_slot d_head) d_model", "kv_head d_model d_head", {"kv_slot": "head // kv_head"},
                     lambda t: torch.stack([t[20 * g + 10 : 20 * g + 15].T for g in range(3)])),
    "gate first": ("(gate_up d_mlp) d_model", "d_model d_mlp", {"gate_up": 1}, lambda t: t[11:].T),
    "innermost interleave": ("expert d_model (d_mlp gate_up)", "d_model d_mlp", {"expert": 3, "gate_up": 1},
                             lambda t: t[3][:, 1::2]),
    "expert and halves": ("expert (gate_up d_mlp) d_model", "d_mlp d_model", {"expert": "3 - 1", "gate_up": 0},
                          lambda t: t[2][:11]),
    "leading one": ("1 n_ctx d_model", "n_ctx d_model", {}, lambda t: t[0]),
    "a one in a group": ("(1 d_mlp)", "d_mlp", {}, lambda t: t),
    "a scalar": ("1", "", {}, lambda t: t[0]),
    "a scalar of no axes": ("", "", {}, lambda t: t),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_views(name):
    """The numbers are those of an independent slice, and the storage is the file's."""
    layout, target, pick, expected = CASES[name]
    view = make_view(layout, target, SIZES, pick)
    tensor = filled(*view.shape)
    out = view(tensor)
    assert torch.equal(out, expected(tensor))
    assert tuple(out.shape) == view.result
    assert not view.copies
    assert out.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
    with torch.inference_mode():
        assert not make_view(layout, target, SIZES, pick).copies


@pytest.mark.parametrize("wrap", [torch.no_grad, torch.inference_mode])
def test_a_merge_across_a_gap_is_memory_of_its_own(wrap):
    """Falcon 40b: queries are all but the last two slots of each group, so that merged heads are no view."""
    layout, pick = "(kv_head kv_slot d_head) d_model", {"kv_slot": "0:head // kv_head"}
    with wrap():
        view = make_view(layout, "head d_model d_head", SIZES, pick, {"head": ("kv_head", "group")})
        tensor = filled(60, 7)
        before = tensor.clone()
        out = view(tensor)
        rows = [20 * group + 5 * head for group in range(3) for head in range(2)]
        assert torch.equal(out, torch.stack([tensor[row : row + 5].T for row in rows]))
        assert view.copies
        out.fill_(-1.0)
        assert torch.equal(tensor, before)


def test_a_merge_without_a_gap_is_a_view():
    view = make_view("(kv_head group d_head) d_model", "head d_model d_head", {**SIZES, "group": 2}, {},
                     {"head": ("kv_head", "group")})  # fmt: skip
    tensor = filled(30, 7)
    assert not view.copies
    assert torch.equal(view(tensor), tensor.view(6, 5, 7).transpose(1, 2))
    assert view(tensor)._base is not None


def test_a_copy_stays_a_copy_where_the_strides_would_allow_a_view():
    """What is promised as FRESH may be written to, so it never shares the file's storage."""
    sizes = {"kv_head": 2, "kv_slot": 3, "d_model": 4, "head": 4}
    view = make_view("(kv_head kv_slot) d_model", "head d_model", sizes, {"kv_slot": "0:2"},
                     {"head": ("kv_head", "group")})  # fmt: skip
    assert view.copies
    odd = filled(64).as_strided((6, 4), (0, 1))
    out = view(odd)
    assert torch.equal(out, odd[:4])
    assert out.untyped_storage().data_ptr() != odd.untyped_storage().data_ptr()


def test_strided_sources_are_seen_not_copied():
    """A live model's weight may be a transpose of other memory."""
    tensor = filled(7, 30).T
    out = make_view("(head d_head) d_model", "head d_model d_head", SIZES)(tensor)
    assert torch.equal(out, tensor.reshape(6, 5, 7).transpose(1, 2))
    assert out.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()


@pytest.mark.parametrize("shape", [(30, 8), (7, 30), (30,), (30, 7, 1), (31, 7)])
def test_another_shape(shape):
    with pytest.raises(LayoutError, match="is not"):
        make_view("(head d_head) d_model", "head d_model d_head", SIZES)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("layout", "target", "pick", "merge", "says"),
    [
        ("(head d_head) d_model", "head d_model", {}, {}, "gives the axes"),
        ("(head d_head) d_model", "head d_model d_mlp d_head", {}, {}, "gives the axes"),
        ("(head qkv d_head) d_model", "head d_model d_head", {}, {}, "gives the axes"),
        ("(head d_head) d_moddel", "head d_head d_moddel", {}, {}, "no size for the axis 'd_moddel'"),
        ("(head qkv d_head)", "head d_head", {"qvk": 0}, {}, "no axis 'qvk'"),
        ("(head qkv d_head)", "head d_head", {"qkv": 3}, {}, "does not lie in 'qkv'"),
        ("(head qkv d_head)", "head d_head", {"qkv": -1}, {}, "does not lie in 'qkv'"),
        ("(slot d_head)", "head d_head", {"slot": "0:head + head + 1"}, {}, "does not lie in 'slot'"),
        ("(slot d_head)", "head d_head", {"slot": "head:head"}, {}, "does not lie in 'slot'"),
        ("(slot d_head)", "head d_head", {"slot": "0:kv_head"}, {}, "gives 3 for 'head', which is 6"),
        ("(slot d_head)", "head d_head", {"slot": "head"}, {}, "gives the axes"),
        ("(slot d_head)", "d_head", {"slot": "0:head"}, {}, "cannot be named"),
        ("(kv_head d_head)", "head d_head", {}, {"kv_heads": ("kv_head",)}, "no axis 'kv_heads'"),
        ("(kv_head d_head)", "head d_head", {}, {"head": ("kv_head",)}, "gives 3 for 'head', which is 6"),
    ],
)
def test_what_does_not_join(layout, target, pick, merge, says):
    with pytest.raises(ValueError, match=says):
        make_view(layout, target, SIZES, pick, merge)


@st.composite
def layouts(draw):
    """A layout, its sizes (equal ones too: names tell axes apart, sizes never do), and an order of its axes."""
    names = draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=5, unique=True))
    sizes = {name: draw(st.integers(1, 3)) for name in names}
    dimensions, rest = [], list(names)
    while rest:
        taken = draw(st.integers(1, len(rest)))
        dimensions.append(rest[:taken])
        rest = rest[taken:]
    layout = " ".join(one[0] if len(one) == 1 else f"({' '.join(one)})" for one in dimensions)
    return layout, sizes, " ".join(draw(st.permutations(names)))


@given(layouts())
def test_equals_einops(case):
    """Joined by an arrow, the two strings are einops' notation, and mean the same."""
    layout, sizes, target = case
    view = make_view(layout, target, sizes)
    tensor = filled(*view.shape)
    assert torch.equal(view(tensor), einops.rearrange(tensor, f"{layout} -> {target}", **sizes))
    assert not view.copies


@given(layouts(), st.data())
def test_slices_cover_an_axis(case, data):
    """Cut in two, an axis gives two views that together hold every number once."""
    layout, sizes, target = case
    axis = data.draw(st.sampled_from(target.split()))
    sizes = {**sizes, axis: 3}
    cut = data.draw(st.integers(1, 2))
    whole = make_view(layout, target, sizes)
    tensor = filled(*whole.shape)
    place = target.split().index(axis)
    free = {name: size for name, size in sizes.items() if name != axis} | {axis: 3}
    halves = []
    for pick in (f"0:{cut}", f"{cut}:3"):
        renamed = " ".join("part" if name == axis else name for name in target.split())
        halves.append(make_view(layout, renamed, free, {axis: pick})(tensor))
    assert torch.equal(torch.cat(halves, place), whole(tensor))
