"""The non-linearities that a config can name."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

ActivationFunction = Callable[..., Tensor]

SOFTCAP_DISABLED = -1.0


def gelu_new(input: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Computes ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`` (Hendrycks & Gimpel 2016), GPT-2's GELU."""
    return F.gelu(input, approximate="tanh")


def gelu_fast(input: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Computes the tanh approximation of GELU; `gelu_new` with the cube written as ``x * (1 + 0.044715 x^2)``."""
    return F.gelu(input, approximate="tanh")


def gelu_pytorch_tanh(input: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Computes the tanh approximation of GELU, under the name transformers gives it."""
    return F.gelu(input, approximate="tanh")


def solu(input: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Computes ``x * softmax(x)`` over the last axis (Elhage et al. 2022, Softmax Linear Units)."""
    return input * F.softmax(input, dim=-1)


def relu2(input: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Computes ``max(x, 0)^2`` (So et al. 2021, Primer)."""
    return F.relu(input).square()


def _xielu(input: Tensor, alpha_p: float | Tensor, alpha_n: float | Tensor, beta: float, eps: float) -> Tensor:
    positive = alpha_p * input * input + beta * input
    negative = (torch.expm1(input.clamp(max=eps)) - input) * alpha_n + beta * input
    return torch.where(input > 0, positive, negative)


def xielu(input: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Computes xIELU with its initial constants ``alpha_p = alpha_n = 0.8``, ``beta = 0.5`` (Huang 2024)."""
    return _xielu(input, 0.8, 0.8, 0.5, -1e-6)


class XIELU(nn.Module):
    """xIELU with trainable slopes (Huang 2024, https://arxiv.org/abs/2411.13010).

    ``a_p x^2 + beta x`` where ``x > 0``, else ``a_n (exp(x) - 1 - x) + beta x``, with
    ``a_p = softplus(alpha_p)`` and ``a_n = beta + softplus(alpha_n)``.

    Args:
        alpha_p_init: ``a_p`` at the start.
        alpha_n_init: ``a_n`` at the start, above `beta_init`.
        beta_init: The slope at zero, fixed.
        eps: The exponential's argument is clamped to at most this, a little below zero.
    """

    beta: Tensor

    def __init__(
        self, alpha_p_init: float = 0.8, alpha_n_init: float = 0.8, beta_init: float = 0.5, eps: float = -1e-6
    ) -> None:
        super().__init__()
        self.alpha_p = nn.Parameter(torch.tensor([math.log(math.expm1(alpha_p_init))]))
        self.alpha_n = nn.Parameter(torch.tensor([math.log(math.expm1(alpha_n_init - beta_init))]))
        self.register_buffer("beta", torch.tensor(beta_init))
        self.eps = eps

    def forward(self, input: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Applies the function elementwise."""
        alpha_n = self.beta + F.softplus(self.alpha_n)
        positive = F.softplus(self.alpha_p) * input * input + self.beta * input
        negative = (torch.expm1(input.clamp(max=self.eps)) - input) * alpha_n + self.beta * input
        return torch.where(input > 0, positive, negative)


def softcap_enabled(cap: float | int | None) -> bool:
    """Says whether a soft cap is on: any number above zero is, ``None`` and the rest are not."""
    return cap is not None and cap > 0


def apply_softcap(x: Float[Tensor, "..."], cap: float | int | None) -> Float[Tensor, "..."]:
    """Computes ``cap * tanh(x / cap)``, which lies in ``(-cap, cap)``; returns `x` itself where the cap is off."""
    if cap is None or cap <= 0:
        return x
    return cap * torch.tanh(x / cap)


SUPPORTED_ACTIVATIONS: dict[str, ActivationFunction] = {
    "solu": solu,
    "solu_ln": solu,
    "gelu_new": gelu_new,
    "gelu_fast": gelu_fast,
    "silu": F.silu,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_pytorch_tanh": gelu_pytorch_tanh,
    "xielu": xielu,
    "relu2": relu2,
}
