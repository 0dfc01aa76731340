"""Chains of linear operations: any order of axes in memory, any dtypes, in blocks, against the formula."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.loading.laid_out import laid_out, order_in_memory, promise, storages, unreadable
from transformer_lens.loading.processing import blocks, cast
from transformer_lens.loading.processing.linear_chain import Center, Chain, Scale, recast, then, unrounded
from transformer_lens.loading.processing.sums import added, computed
from transformer_lens.loading.quantization.eight_bit import Packed8bit
from transformer_lens.loading.quantization.packed import Compute, Packing
from transformer_lens.loading.weights import Held, Weights

CPU = torch.device("cpu")
AXES = ("head", "d_model", "d_head")
SIZES = (5, 7, 3)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Of one rounding to the dtype, relative to numbers of size one; sums inside are in float32 at least.
CLOSE = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.fixture(autouse=True, params=[64, 1 << 20], ids=["many_blocks", "one_block"])
def block_bytes(request):
    before = blocks._BLOCK_BYTES, blocks._ONCE_BYTES
    blocks._BLOCK_BYTES = blocks._ONCE_BYTES = request.param
    yield
    blocks._BLOCK_BYTES, blocks._ONCE_BYTES = before


@st.composite
def chains(draw):
    """A source, operations on it, and the dtype of the result."""
    square = draw(st.booleans())
    ndim = draw(st.integers(1, 3))
    sizes = (4,) * ndim if square else draw(st.permutations(SIZES))[:ndim]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    source = torch.randn(sizes, generator=generator, dtype=torch.float64).to(draw(st.sampled_from(FLOATS)))
    source = laid_out(source, draw(st.permutations(range(ndim))))
    if draw(st.booleans()) and ndim > 1:  # a part of a larger tensor
        source = torch.cat([source, source], dim=0)[: source.shape[0]]
    operations = []
    for _ in range(draw(st.integers(0, 4))):
        axis = draw(st.integers(0, ndim - 1))
        scale = torch.rand(sizes[axis], generator=generator, dtype=torch.float64) + 0.5
        operations.append((axis, scale if draw(st.booleans()) else None))
    return source, operations, draw(st.sampled_from(FLOATS))


def by_formula(source, operations):
    value = source.double()
    for axis, scale in operations:
        if scale is None:
            value = value - value.mean(axis, keepdim=True)
        else:
            value = value * scale.view([-1 if place == axis else 1 for place in range(value.ndim)])
    return value


@given(chains())
def test_a_chain_is_the_formula(case):
    source, operations, dtype = case
    before = source.clone()
    tensor = promise(source, " ".join(AXES[: source.ndim]))
    for axis, scale in operations:
        operation = Center(AXES[axis]) if scale is None else Scale(AXES[axis], promise(scale))
        tensor = then(tensor, operation, "a step")
    tensor = recast(tensor, dtype, CPU)
    result = tensor.make()
    assert result.dtype == dtype == tensor.dtype and tuple(result.shape) == tensor.shape
    # A scale behind a centring along the same axis starts a new chain, and the first one's result is not of `dtype`.
    is_nested = isinstance(tensor.make, Chain) and isinstance(tensor.make.source.make, Chain)
    inner = blocks.inner_dtype(source.dtype) if is_nested else blocks.inner_dtype(source.dtype, dtype)
    tolerance = max(CLOSE[dtype], CLOSE[inner])
    expected = by_formula(source, operations)
    torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)
    assert tensor.held is Held.FRESH and not storages([result]) & storages([source])
    assert order_in_memory(result) == order_in_memory(source)
    assert result.untyped_storage().nbytes() == tensor.nbytes
    assert torch.equal(source, before)
    assert not storages([tensor.make()]) & storages([result])


def test_steps_and_cast_are_one_chain_that_reads_the_source_twice_at_most():
    reads = []
    source = torch.randn(6, 8)
    lazy = promise(source, "d_model d_mlp", make=lambda: reads.append(1) or source)
    scale = promise(torch.rand(6) + 0.5)
    tensor = then(then(lazy, Scale("d_model", scale), "folded"), Center("d_model"), "centred")
    tensor = recast(recast(tensor, torch.bfloat16, CPU), torch.float64, CPU)
    assert isinstance(tensor.make, Chain)
    assert tensor.make.source is lazy and len(tensor.make.operations) == 2
    assert tensor.sources == (lazy, scale)
    assert tensor.origin.steps == ("folded", "centred")
    assert not reads
    expected = by_formula(source, [(0, scale.make().double()), (0, None)])
    # Never rounded to bfloat16, which was asked for on the way.
    torch.testing.assert_close(tensor.make(), expected, rtol=1e-12, atol=1e-12)
    assert len(reads) == 1


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_result_that_a_later_step_reads_is_not_rounded_before(order):
    """The bias of a float16 checkpoint that is loaded in float32 has the precision of float32."""
    weight = laid_out(torch.randn(6, 9).half(), order)
    norm, bias = torch.randn(6).half(), torch.randn(9).half()
    tensor = added(promise(bias, "d_mlp"), promise(weight, "d_model d_mlp"), promise(norm), "d_model", "folded")
    assert tensor.dtype == torch.float16 and tensor.make().dtype == torch.float16
    expected = bias.double() + norm.double() @ weight.double()
    wide = recast(tensor, torch.float32, CPU).make()
    torch.testing.assert_close(wide.double(), expected, rtol=1e-6, atol=1e-6)
    centred = recast(then(tensor, Center("d_mlp"), "centred"), torch.float32, CPU).make()
    torch.testing.assert_close(centred.double(), expected - expected.mean(), rtol=1e-6, atol=1e-6)
    scaled = then(then(then(tensor, Center("d_mlp"), ""), Scale("d_mlp", promise(bias)), ""), Center("d_mlp"), "")
    expected = (expected - expected.mean()) * bias.double()
    found = recast(scaled, torch.float32, CPU).make()
    torch.testing.assert_close(found.double(), expected - expected.mean(), rtol=1e-5, atol=1e-5)


def test_a_sum_over_a_result_is_not_rounded_before():
    weight, bias = torch.randn(6, 9).half(), promise(torch.zeros(9).half(), "d_mlp")
    centred = then(promise(weight, "d_model d_mlp"), Center("d_mlp"), "")
    total = recast(added(bias, centred, promise(torch.ones(6)), "d_model", ""), torch.float32, CPU).make()
    expected = weight.double() - weight.double().mean(1, keepdim=True)
    torch.testing.assert_close(total.double(), expected.sum(0), rtol=1e-6, atol=1e-6)


def test_what_is_computed_is_never_an_alias():
    source = torch.randn(5)
    tensor = computed(promise(source), lambda: source, "nothing done", ())
    assert torch.equal(tensor.make(), source) and not storages([tensor.make()]) & storages([source])


@pytest.mark.parametrize("over", [0, 1, 2])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_contraction(over, order, dtype):
    weight = laid_out(torch.randn(SIZES).to(dtype), order)
    vector = torch.randn(SIZES[over])
    found = blocks.contract(weight, vector, over, torch.float32)
    expected = torch.tensordot(weight.double(), vector.double(), dims=([over], [0]))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_gradients_are_off():
    source = torch.randn(3, 4, requires_grad=True)
    centred = then(promise(source, "d_model d_mlp"), Center("d_model"), "").make()
    bias = torch.zeros(4, requires_grad=True)
    total = added(promise(bias, "d_mlp"), promise(source, "d_model d_mlp"), promise(torch.ones(3)), "d_model", "")
    assert not centred.requires_grad and not total.make().requires_grad
    assert source.requires_grad and source.grad is None


def test_empty_and_scalar():
    assert recast(promise(torch.tensor(2.5)), torch.float64, CPU).make() == 2.5
    empty = then(promise(torch.zeros(0, 3), "d_model d_mlp"), Center("d_mlp"), "")
    assert empty.make().shape == (0, 3)


PACKING = Packing("int8", Compute((6, 1)), 6, 0, False, 1, torch.float32, lambda: pytest.fail("it was read"))


@pytest.mark.parametrize("dtype", FLOATS)
def test_cast_keeps_what_is_right_and_what_is_no_float(dtype):
    weights = Weights(
        {
            "right": unreadable((2, 3), dtype),
            "integer": unreadable((2, 3), torch.int64),
            "mask": unreadable((2, 3), torch.bool),
            "packed": unreadable((6, 1), torch.uint8, packed=PACKING),
            "packed_as_float": unreadable((6, 1), torch.bfloat16, packed=PACKING),
        }
    )
    done = cast(weights, dtype, CPU)
    assert all(done[name] is weights[name] for name in weights)


@given(st.permutations(range(3)), st.sampled_from(FLOATS), st.sampled_from(FLOATS))
def test_cast_converts_once_in_the_same_order(order, dtype, wanted):
    source = laid_out(torch.randn(SIZES).to(dtype), order)
    done = cast(Weights({"W": promise(source, " ".join(AXES))}), wanted, CPU)["W"]
    result = done.make()
    assert torch.equal(result, source.to(wanted))
    assert result.stride() == source.stride()
    assert (done.held is Held.FRESH) == (dtype != wanted) == (result is not source)


def test_cast_to_a_device_by_its_short_name():
    weights = Weights({"W": promise(torch.zeros(2))})
    assert cast(weights, torch.float32, torch.device("cpu:0"))["W"] is weights["W"]
    assert cast(weights, torch.float32, torch.device("meta"))["W"].make().device.type == "meta"


def test_cast_moves_what_is_packed_with_its_scales():
    data, scales = torch.zeros(3, 4, dtype=torch.int8), torch.ones(3)
    packing = Packing("int8", Compute((3, 4)), 24, 0, False, 1, torch.float32, lambda: Packed8bit((3, 4), data, scales))
    weights = Weights({"W": unreadable((3, 4), torch.int8, packed=packing)})
    done = cast(weights, torch.float32, torch.device("meta"))["W"]
    assert done.device.type == "meta" and done.dtype == torch.int8 and done.held is Held.FRESH
    moved = done.packed.make()
    assert moved.data.device.type == moved.scales.device.type == "meta"


def test_unrounded_widens_results_only():
    raw = promise(torch.randn(3).bfloat16(), "d_model")
    assert unrounded(raw) is raw
    centred = then(raw, Center("d_model"), "")
    assert centred.dtype == torch.bfloat16 and unrounded(centred).dtype == torch.float32
