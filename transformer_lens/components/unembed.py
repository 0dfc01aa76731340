"""Unembedding."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from transformer_lens.components.linear import affine
from transformer_lens.components.matrix_owner import MatrixOwner
from transformer_lens.components.parameter import new_parameter
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.hook_points import HookPoint  # noqa: F401  upstream has it here
from transformer_lens.utilities.addmm import batch_addmm  # noqa: F401  upstream has it here


class Unembed(MatrixOwner):
    """``residual @ W_U + b_U``: the logits."""

    def __init__(self, cfg: dict | HookedTransformerConfig) -> None:
        super().__init__()
        self.cfg = HookedTransformerConfig.unwrap(cfg)
        self.W_U = new_parameter(self.cfg.d_model, self.cfg.d_vocab_out, dtype=self.cfg.dtype, order=(1, 0))
        self.b_U = new_parameter(self.cfg.d_vocab_out, dtype=self.cfg.dtype, fill=0.0)

    def forward(self, residual: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_vocab_out"]:
        """Returns the logits of every position."""
        return affine(residual, self.W_U, self.b_U, self.packing.get("W_U"))
