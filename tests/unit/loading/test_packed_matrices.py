"""Packed matrices: bit-equal numbers without bitsandbytes, rows gathered with their scales, what files get wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.quantized_models import packing_library
from transformer_lens.loading import CorruptCheckpointError, QuantizedTensorError
from transformer_lens.loading.quantization import bitsandbytes
from transformer_lens.loading.quantization.eight_bit import Packed8bit
from transformer_lens.loading.quantization.four_bit import NestedScales, Packed4bit
from transformer_lens.loading.quantization.matrices import matrix_order, rows_taken, runs_of
from transformer_lens.loading.quantization.packed import Compute, Packing
from transformer_lens.loading.quantization.settings import Settings, requested, settings_of
from transformer_lens.loading.quantization.stored import with_packed_matrices
from transformer_lens.loading.weights import Weights, element_size

NF4 = torch.linspace(-1, 1, 16) ** 3


def packed_4bit(rows: int, columns: int, blocksize: int, nested: bool, storage: torch.dtype, seed: int) -> Packed4bit:
    generator = torch.Generator().manual_seed(seed)
    count = rows * columns
    blocks = -(-count // blocksize)
    stored = (
        torch.randint(256, ((count + 1) // 2,), generator=generator, dtype=torch.uint8).view(storage).reshape(-1, 1)
    )
    if not nested:
        return Packed4bit(
            (rows, columns), stored, torch.rand(blocks, generator=generator), NF4, blocksize, "nf4", torch.float32
        )
    scales = NestedScales(
        torch.rand(-(-blocks // 256), generator=generator),
        torch.randn(256, generator=generator),
        256,
        torch.tensor(0.7),
    )
    codes = torch.randint(256, (blocks,), generator=generator, dtype=torch.uint8)
    return Packed4bit((rows, columns), stored, codes, NF4, blocksize, "nf4", torch.float32, scales)


def packing(matrix: Packed4bit) -> Packing:
    size = matrix.data.element_size()
    return Packing(
        "nf4",
        Compute(matrix.shape),
        0,
        matrix.blocksize,
        matrix.nested is not None,
        size,
        torch.float32,
        lambda: matrix,
    )


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.sampled_from([16, 48, 64, 96, 128, 2048]),
    blocksize=st.sampled_from([32, 64, 128]),
    nested=st.booleans(),
    storage=st.sampled_from([torch.uint8, torch.bfloat16, torch.float32]),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_gathered_rows_are_the_rows_of_the_whole(rows, columns, blocksize, nested, storage, seed, data) -> None:
    if rows * columns % (2 * element_size(storage)):
        rows = 8
    matrix = packed_4bit(rows, columns, blocksize, nested, storage, seed)
    wanted = data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=6))
    runs = runs_of(torch.tensor(sorted(wanted)))
    whole = matrix.dequantized()
    before = matrix.data.view(torch.uint8).clone()
    expected = torch.cat([whole[start:stop] for start, stop in runs])
    if packing(matrix).can_gather(runs):
        part = matrix.rows(runs)
        assert part.shape == (len(expected), columns)
        assert torch.equal(part.dequantized(), expected)
    else:
        ends = [edge * columns % blocksize for run in runs for edge in run]
        assert any(ends) or expected.numel() // 2 % element_size(storage)
    assert torch.equal(matrix.data.view(torch.uint8), before)


def test_one_run_is_a_view_and_rows_of_8_bits_too() -> None:
    matrix = packed_4bit(8, 64, 64, False, torch.uint8, 0)
    part = matrix.rows([(2, 5)])
    assert part.data.data_ptr() == matrix.data.data_ptr() + 2 * 32
    eight = Packed8bit((4, 3), torch.randint(-127, 128, (4, 3), dtype=torch.int8), torch.rand(4))
    assert torch.equal(eight.rows([(1, 2), (3, 4)]).dequantized(), eight.dequantized()[[1, 3]])


def test_cut_nested_scales_become_plain_ones_and_whole_ones_stay() -> None:
    matrix = packed_4bit(16, 64 * 64, 64, True, torch.uint8, 1)
    assert matrix.rows([(4, 8)]).nested is not None
    assert matrix.rows([(1, 2), (4, 8)]).nested is None


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("storage", ["uint8", "bfloat16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_are_those_of_bitsandbytes(kind: str, nested: bool, storage: str, dtype: torch.dtype) -> None:
    library = packing_library()
    matrix = torch.randn(72, 192, generator=torch.Generator().manual_seed(0)).to(dtype)
    asked = settings_of(
        {
            "load_in_4bit": True, "bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": nested,
            "bnb_4bit_quant_storage": storage,
        }
    )  # fmt: skip
    packed = bitsandbytes.quantized(matrix, asked)
    parameter = bitsandbytes.as_parameter(packed)
    expected = library.functional.dequantize_4bit(parameter.data, parameter.quant_state)
    assert torch.equal(packed.dequantized(), expected)
    again = bitsandbytes.packed_of(parameter)
    assert torch.equal(again.dequantized(), expected)


@pytest.mark.parametrize(
    ("axes", "shape"),
    [("head d_model d_head", (3, 4, 5)), ("head d_head d_model", (3, 5, 4)), ("d_model d_mlp", (4, 7))],
)
def test_matrices_of_parameters(axes: str, shape: tuple[int, ...]) -> None:
    order = matrix_order(axes, shape)
    parameter = torch.randn(shape)
    matrix = order.to_matrix(parameter)
    assert torch.equal(order.from_matrix(matrix), parameter)
    x = torch.randn(2, order.matrix_shape[1])
    if axes == "head d_model d_head":
        assert torch.allclose(x @ matrix.T, torch.einsum("bm,hmd->bhd", x, parameter).flatten(1), atol=1e-5)
    elif axes == "head d_head d_model":
        assert torch.allclose(x @ matrix.T, torch.einsum("bhd,hdm->bm", x.view(2, 3, 5), parameter), atol=1e-5)


def test_rows_that_a_view_takes() -> None:
    interleaved = lambda tensor: tensor.view(2, 3, 4, 5)[:, 1].permute(0, 2, 1)
    assert rows_taken(interleaved, (24, 5), False, "head d_model d_head") == [(4, 8), (16, 20)]
    columns = lambda tensor: tensor.view(6, 2, 5)[:, 0].t()
    assert rows_taken(columns, (6, 10), False, "d_model d_mlp") is None


def stored(**changes: object) -> Weights:
    """A 4-bit matrix [4 64] as a file holds it, with entries changed or, where None, left out."""
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [4, 64], **changes.pop("state", {})}
    text = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    tensors = {
        "m.weight": torch.zeros(128, 1, dtype=torch.uint8), "m.weight.absmax": torch.ones(4),
        "m.weight.quant_map": NF4, "m.weight.quant_state.bitsandbytes__nf4": text, **changes,
    }  # fmt: skip
    return Weights.from_state_dict({name: tensor for name, tensor in tensors.items() if tensor is not None})


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (stored(state={"shape": [4, 10**9]}), "has 128 bytes, where"),
        (stored(state={"shape": [4]}), "its state says"),
        (stored(state={"blocksize": 7}), "its state says"),
        (stored(state={"dtype": "load"}), "its state says"),
        (stored(state={"quant_type": "fp4"}), "its state says"),
        (stored(**{"m.weight": None}), "is not there"),
        (stored(**{"m.weight.absmax": None}), "lacks its absmax"),
        (stored(**{"m.weight.absmax": torch.ones(5)}), "has 5 scales"),
        (stored(**{"m.weight.absmax": torch.ones(4, dtype=torch.uint8)}), "nothing says how they are packed"),
        (stored(**{"m.weight.quant_map": torch.ones(7)}), "its table has the shape"),
        (stored(**{"m.weight.quant_state.bitsandbytes__nf4": torch.zeros(9, dtype=torch.uint8)}), "cannot be read"),
        (stored(**{"m.weight.quant_state.bitsandbytes__nf4": torch.zeros(9999, dtype=torch.uint8)}), "no short text"),
        (stored(**{"m.weight.nested_absmax": torch.ones(1)}), "its state says"),
    ],
)
def test_tensors_that_do_not_fit_each_other(weights: Weights, words: str) -> None:
    with pytest.raises(CorruptCheckpointError, match=words):
        with_packed_matrices(weights, Settings(load_in_4bit=True), "a checkpoint")


def test_what_fits_is_one_promise() -> None:
    (name,) = found = with_packed_matrices(stored(), Settings(load_in_4bit=True), "a checkpoint")
    promise = found[name]
    assert name == "m.weight" and promise.shape == (4, 64) and promise.packed is not None
    assert promise.nbytes == 128 + 16 + 64
    assert torch.equal(promise.packed.make().dequantized(), torch.full((4, 64), float(NF4[0])))


def test_8_bit_scales_that_do_not_fit() -> None:
    weights = Weights.from_state_dict({"m.weight": torch.zeros(3, 4, dtype=torch.int8), "m.SCB": torch.ones(4)})
    with pytest.raises(CorruptCheckpointError, match="a scale a row"):
        with_packed_matrices(weights, Settings(load_in_8bit=True), "a checkpoint")
    woven = {
        "m.weight": torch.zeros(3, 4, dtype=torch.int8),
        "m.SCB": torch.ones(3),
        "m.weight_format": torch.tensor(2),
    }
    with pytest.raises(QuantizedTensorError, match="order 2 of a GPU kernel"):
        with_packed_matrices(Weights.from_state_dict(woven), Settings(load_in_8bit=True), "a checkpoint")


def test_settings_are_read_as_data() -> None:
    with pytest.raises(QuantizedTensorError, match="gptq"):
        settings_of({"quant_method": "gptq"})
    with pytest.raises(QuantizedTensorError, match="one of load_in_4bit and load_in_8bit"):
        settings_of({})
    with pytest.raises(QuantizedTensorError, match="is no dtype"):
        settings_of({"load_in_4bit": True, "bnb_4bit_compute_dtype": "os"})
    with pytest.raises(QuantizedTensorError, match="not a BitsAndBytesConfig"):
        settings_of(3)
    asked = settings_of({"load_in_8bit": True, "llm_int8_skip_modules": ["layers.1", "fc1"]})
    assert asked.skips("layers.1.attn", False) and not asked.skips("layers.11.attn", False)
    assert asked.skips("model.fc1", False) and not asked.skips("lm_head", True)


def stored_entries(matrix: Packed4bit, absmax: torch.Tensor) -> Weights:
    state = {"quant_type": "nf4", "blocksize": matrix.blocksize, "dtype": "float32", "shape": list(matrix.shape)}
    text = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    return Weights.from_state_dict(
        {
            "m.weight": matrix.data,
            "m.weight.absmax": absmax,
            "m.weight.quant_map": matrix.code,
            "m.weight.quant_state.bitsandbytes__nf4": text,
        }
    )


def read_again(matrix: Packed4bit, absmax: torch.Tensor) -> Packed4bit:
    (promise,) = with_packed_matrices(stored_entries(matrix, absmax), Settings(load_in_4bit=True), "here").values()
    assert promise.packed is not None
    made = promise.packed.make()
    assert isinstance(made, Packed4bit)
    return made


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 12), blocks_a_row=st.integers(1, 4), blocksize=st.sampled_from([32, 64, 128]))
def test_scales_of_any_saved_shape_are_a_row_in_the_order_of_the_numbers(rows, blocks_a_row, blocksize) -> None:
    matrix = packed_4bit(rows, blocks_a_row * blocksize, blocksize, False, torch.uint8, rows)
    by_column = matrix.absmax.view(rows, blocks_a_row).t().contiguous()
    for saved in (matrix.absmax, by_column, by_column.bfloat16()):
        found = read_again(matrix, saved)
        assert found.absmax.shape == matrix.absmax.shape and found.absmax.dtype == torch.float32
        torch.testing.assert_close(found.absmax, matrix.absmax, rtol=1e-2, atol=0)
        # What is cut by rows takes its own scales along, and no more.
        for start in range(rows):
            part = found.rows([(start, start + 1)])
            assert torch.equal(part.dequantized(), found.dequantized()[start : start + 1])
            assert part.absmax.shape == (blocks_a_row,)
    for saved in (matrix.absmax[None], matrix.absmax[:, None], matrix.absmax[None, :, None]):
        assert torch.equal(read_again(matrix, saved).absmax, matrix.absmax)


@pytest.mark.parametrize("shape", [(2, 12), (3, 8), (8, 3), (2, 3, 4), (1, 25), (23,), ()])
def test_scales_in_no_known_order_are_refused(shape) -> None:
    matrix = packed_4bit(6, 4 * 64, 64, False, torch.uint8, 0)
    with pytest.raises(CorruptCheckpointError, match="scales"):
        read_again(matrix, torch.ones(shape))


@pytest.mark.parametrize("nested", [False, True])
def test_a_matrix_without_room_for_what_its_shape_says_cannot_be_made(nested) -> None:
    matrix = packed_4bit(6, 64, 64, nested, torch.uint8, 0)
    parts = {
        "data": matrix.data[:-1], "absmax": matrix.absmax[:-1], "code": matrix.code[:-1], "shape": (7, 64),
    }  # fmt: skip
    for name, wrong in {**parts, "blocksize": 32}.items():
        with pytest.raises(QuantizedTensorError, match="does not have what belongs to it"):
            replace(matrix, **{name: wrong})
    with pytest.raises(QuantizedTensorError, match="scales"):
        replace(matrix, absmax=matrix.absmax[None])
    if matrix.nested is not None:
        for name in ("absmax", "code"):
            wrong = replace(matrix.nested, **{name: torch.rand(0)})
            with pytest.raises(QuantizedTensorError, match="scales"):
                replace(matrix, nested=wrong)
    for runs in ([(5, 7)], [(-1, 2)], [(3, 3)]):
        with pytest.raises(AssertionError):
            matrix.rows(runs)
    eight = Packed8bit((4, 3), torch.zeros(4, 3, dtype=torch.int8), torch.rand(4))
    for name, wrong in {"shape": (5, 3), "data": eight.data[1:], "scales": torch.rand(3)}.items():
        with pytest.raises(QuantizedTensorError, match="does not have what belongs to it"):
            replace(eight, **{name: wrong})


def test_four_bits_are_nf4_unless_a_config_says_another() -> None:
    alone = requested(None, load_in_4bit=True, load_in_8bit=None)
    assert alone == Settings(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    # A config says itself what it means, in transformers' defaults.
    assert requested({"load_in_4bit": True}, None, None).kind == "fp4"
    assert requested({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, True, None).kind == "nf4"
    assert requested(None, None, True) == Settings(load_in_8bit=True, bnb_4bit_quant_type="nf4")
    assert requested(None, None, None) is None
