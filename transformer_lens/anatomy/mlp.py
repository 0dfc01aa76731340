"""What an MLP computes."""

from __future__ import annotations

from dataclasses import dataclass

from transformer_lens.anatomy.norm import Norm
from transformer_lens.anatomy.reader import Reader, Writer


@dataclass(frozen=True)
class Mlp:
    """``act(x W_in + b_in) W_out + b_out``; gated, ``(act(x W_gate + b_gate) * (x W_in + b_in)) W_out + b_out``.

    Attributes:
        d_mlp: Its hidden width.
        activation: A key of ``SUPPORTED_ACTIVATIONS``.
        is_gated: It has ``W_gate``.
        has_gate_bias: It has ``b_gate``: the checkpoint does, or a norm's bias can be folded into nothing else.
        gate_bias_is_ours: No checkpoint has that ``b_gate``; it is zero until a norm is folded.
        inner_norm: Norm of the activation (SoLU), or None.
    """

    d_mlp: int
    activation: str
    is_gated: bool = False
    has_gate_bias: bool = False
    gate_bias_is_ours: bool = False
    inner_norm: Norm | None = None

    def parameters(self) -> dict[str, str]:
        """Returns the axes of each parameter, by name inside the block."""
        out = {"mlp.W_in": "d_model d_mlp"}
        if self.is_gated:
            out["mlp.W_gate"] = "d_model d_mlp"
        out |= {"mlp.b_in": "d_mlp", "mlp.W_out": "d_mlp d_model", "mlp.b_out": "d_model"}
        if self.has_gate_bias:
            out["mlp.b_gate"] = "d_mlp"
        return out if self.inner_norm is None else out | self.inner_norm.parameters()

    def ours(self) -> frozenset[str]:
        """Returns the parameters that no checkpoint has, by name inside the block: zero until processing needs them."""
        return frozenset(["mlp.b_gate"]) if self.gate_bias_is_ours else frozenset()

    def readers(self) -> tuple[Reader, ...]:
        """Returns the matrices that read the MLP's input, with the biases behind them."""
        hidden = Reader("mlp.W_in", "mlp.b_in")
        return (hidden, Reader("mlp.W_gate", "mlp.b_gate")) if self.is_gated else (hidden,)

    def writer(self) -> Writer:
        """Returns the matrix that makes the MLP's output, and the bias behind it."""
        return Writer("mlp.W_out", "mlp.b_out")

    def writers(self) -> tuple[str, ...]:
        """Returns the parameters that make the output, by name inside the block."""
        return ("mlp.W_out", "mlp.b_out")
