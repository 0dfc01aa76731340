"""A normalization: its formula, its parameters, and whether they have been folded away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Norm:
    """``N(x) = x_hat * (offset + w) + b``, where ``x_hat`` is ``x`` centred (LN only) and divided by its scale.

    Attributes:
        name: Attribute path inside its block, or inside the model: "ln1", "attn.q_norm", "ln_final".
        kind: "LN" takes the mean off first; "RMS" does not.
        axes: Axes of the weight, space separated; the last one is normalized.
        eps: Added to the variance.
        has_weight: The checkpoint has a weight ``w``.
        has_bias: The checkpoint has a bias ``b``.
        offset: Added to the weight in the forward pass, 1.0 for Gemma.
        casts_early: ``x_hat`` is rounded to the model's dtype before it meets the weight, and not after.
        is_folded: Weight and bias belong to the weights that read the norm.
    """

    name: str
    kind: Literal["LN", "RMS"]
    axes: str = "d_model"
    eps: float = 1e-5
    has_weight: bool = True
    has_bias: bool = True
    offset: float = 0.0
    casts_early: bool = False
    is_folded: bool = False

    @property
    def centers(self) -> bool:
        """Whether the norm takes the mean off: a constant added to its input changes nothing."""
        return self.kind == "LN"

    def parameters(self) -> dict[str, str]:
        """Returns the axes of each parameter that a model has for it, by name inside the block."""
        if self.is_folded:
            return {}
        has = {"w": self.has_weight, "b": self.has_bias}
        return {f"{self.name}.{leaf}": self.axes for leaf, is_there in has.items() if is_there}
