"""Matrix products with a bias."""

import torch
from jaxtyping import Float
from torch import Tensor


def vanilla_addmm(
    input: Float[Tensor, "... #o"], mat1: Float[Tensor, "m n"], mat2: Float[Tensor, "n o"]
) -> Float[Tensor, "m o"]:
    """Computes ``input + mat1 @ mat2``."""
    return torch.addmm(input, mat1, mat2)


def batch_addmm(
    bias: Float[Tensor, "... #d_out"], weight: Float[Tensor, "d_in d_out"], x: Float[Tensor, "... d_in"]
) -> Float[Tensor, "... d_out"]:
    """Computes ``bias + x @ weight`` for any leading axes of `x`, as one matrix product."""
    return torch.addmm(bias, x.reshape(-1, x.shape[-1]), weight).view(*x.shape[:-1], weight.shape[-1])
