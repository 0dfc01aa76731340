"""What a mixture of experts computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from transformer_lens.anatomy.norm import Norm
from transformer_lens.anatomy.reader import Reader
from transformer_lens.anatomy.router import Router


@dataclass(frozen=True)
class Mixture:
    """``sum_e p_e expert_e(x)`` over the chosen experts, and what a shared expert adds.

    The router says which are chosen, and their weights p. An expert is a gated MLP: ``act(x W_gate^T) * (x W_in^T)``
    times ``W_out^T``. Matrices are [outputs inputs], as upstream keeps them.

    Attributes:
        n_experts: Experts of the layer.
        d_expert: Hidden width of an expert.
        activation: A key of ``SUPPORTED_ACTIVATIONS``.
        router: How tokens are sent to experts.
        has_biases: Experts have biases.
        biases_are_ours: The matrices that read the layer's input have biases that no checkpoint has: zero until a norm
            is folded.
        clamp: Bound of both factors of an expert's product, whose second has one added (gpt-oss); None for a plain one.
        d_shared: Hidden width of the expert that sees every token, or of several side by side; None where there is
            none.
        gates_shared: That expert's output is multiplied by ``sigmoid(x W^T)``.
    """

    n_experts: int
    d_expert: int
    activation: str
    router: Router
    has_biases: bool = False
    biases_are_ours: bool = False
    clamp: float | None = None
    d_shared: int | None = None
    gates_shared: bool = False

    inner_norm: Norm | None = None
    is_gated: bool = True

    def _experts(self) -> Iterator[str]:
        yield from (f"mlp.experts.{expert}" for expert in range(self.n_experts))
        if self.d_shared is not None:
            yield "mlp.shared_expert"

    def has_bias(self, name: str) -> bool:
        """Says whether a matrix of an expert, "W_gate", "W_in" or "W_out", has a bias."""
        return self.has_biases or (self.biases_are_ours and name != "W_out")

    def ours(self) -> frozenset[str]:
        """Returns the parameters that no checkpoint has, by name inside the block: zero until processing needs them."""
        out = ["mlp.W_gate.bias"] if self.router.bias_is_ours else []
        if self.biases_are_ours:
            out += [f"{expert}.{name}.bias" for expert in self._experts() for name in ("W_gate", "W_in")]
        return frozenset(out)

    def parameters(self) -> dict[str, str]:
        """Returns the axes of each parameter, by name inside the block."""
        out = self.router.parameters()
        for expert in self._experts():
            width = "d_shared" if expert == "mlp.shared_expert" else "d_expert"
            for name, axes in {
                "W_gate": f"{width} d_model", "W_in": f"{width} d_model", "W_out": f"d_model {width}"
            }.items():  # fmt: skip
                out[f"{expert}.{name}.weight"] = axes
                if self.has_bias(name):
                    out[f"{expert}.{name}.bias"] = axes.split()[0]
        if self.gates_shared:
            out["mlp.shared_expert_gate.weight"] = "one d_model"
        return out

    def readers(self) -> tuple[Reader, ...]:
        """Returns the matrices that read the layer's input."""
        router = ("mlp.W_gate", "mlp.shared_expert_gate") if self.gates_shared else ("mlp.W_gate",)
        inner = (f"{expert}.{name}" for expert in self._experts() for name in ("W_gate", "W_in"))
        biased = {"mlp.W_gate": self.router.has_bias, "mlp.shared_expert_gate": False}
        return tuple(
            Reader(f"{name}.weight", f"{name}.bias" if biased.get(name, self.has_bias("W_in")) else None)
            for name in (*router, *inner)
        )

    def writers(self) -> tuple[str, ...]:
        """Returns the parameters that make the layer's output."""
        leaves = ("weight", "bias") if self.has_biases else ("weight",)
        return tuple(f"{expert}.W_out.{leaf}" for expert in self._experts() for leaf in leaves)
