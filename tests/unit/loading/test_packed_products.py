"""Products by 4-bit matrices are those by the numbers that were packed, also where rows end inside blocks of scales."""

import pytest
import torch

from tests.integration.quantized_models import packing_library
from transformer_lens.loading.quantization import bitsandbytes
from transformer_lens.loading.quantization.packed import Compute


@pytest.mark.parametrize("columns", [48, 64, 96, 128, 160])
@pytest.mark.parametrize("blocksize", [64, 128])
@pytest.mark.parametrize("with_bias", [False, True])
def test_a_product_and_its_gradient_are_those_of_the_numbers(columns, blocksize, with_bias):
    library = packing_library()
    torch.manual_seed(columns)
    weight = torch.randn(96, columns)
    parameter = library.nn.Params4bit(
        weight.clone(), requires_grad=False, quant_type="nf4", blocksize=blocksize, compress_statistics=False
    ).to("cpu")
    numbers = bitsandbytes.packed_of(parameter).dequantized()
    # A wrong scale is off by more than the rounding to 4 bits is.
    assert (numbers - weight).abs().max() < 0.8
    bias = torch.randn(96) if with_bias else None
    x = torch.randn(7, columns, requires_grad=True)
    theirs = x.detach().clone().requires_grad_()
    out = bitsandbytes.product(x, parameter, bias, Compute((96, columns), torch.float32))
    expected = torch.nn.functional.linear(theirs, numbers, bias)
    assert torch.allclose(out, expected, atol=1e-3)
    toward = torch.randn_like(out)
    out.backward(toward)
    expected.backward(toward)
    assert torch.allclose(x.grad, theirs.grad, atol=1e-3)
    with torch.no_grad():
        assert torch.allclose(
            bitsandbytes.product(x, parameter, bias, Compute((96, columns), torch.float32)), expected, atol=1e-3
        )
