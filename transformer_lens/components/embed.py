"""Token embedding."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn

from transformer_lens import anatomy
from transformer_lens.components.norms import (
    LayerNorm,  # noqa: F401  upstream has it here
    norm_module,
)
from transformer_lens.components.parameter import new_parameter
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig


class Embed(nn.Module):
    """``norm(multiplier * W_E[token])``; most models have neither multiplier nor norm."""

    def __init__(self, cfg: dict | HookedTransformerConfig) -> None:
        super().__init__()
        self.cfg = HookedTransformerConfig.unwrap(cfg)
        self.anatomy = anatomy.embedding_of(self.cfg)
        self.W_E = new_parameter(self.cfg.d_vocab, self.cfg.d_model, dtype=self.cfg.dtype)
        if self.anatomy.norm is not None:
            self.ln = norm_module(self.cfg, self.anatomy.norm)

    def scaled(self, rows: Float[Tensor, "*tokens d_model"]) -> Float[Tensor, "*tokens d_model"]:
        """Returns rows of ``W_E`` times the multiplier; the rows themselves where there is none."""
        if self.anatomy.multiplier == 1.0:
            return rows
        # The multiplier is rounded as transformers rounds it, to the dtype of what it multiplies.
        return rows * rows.new_tensor(self.anatomy.multiplier)

    def forward(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        """Embeds tokens."""
        rows = self.scaled(nn.functional.embedding(tokens, self.W_E))
        return rows if self.anatomy.norm is None else self.ln(rows)
