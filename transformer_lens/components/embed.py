"""Token embedding."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn

from transformer_lens.components.layer_norm import LayerNorm
from transformer_lens.components.parameter import new_parameter
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig


class Embed(nn.Module):
    """Looks up a row of ``W_E`` for every token, and normalises it if the config says so."""

    def __init__(self, cfg: dict | HookedTransformerConfig) -> None:
        super().__init__()
        self.cfg = HookedTransformerConfig.unwrap(cfg)
        self.W_E = new_parameter(self.cfg.d_vocab, self.cfg.d_model, dtype=self.cfg.dtype)
        if self.cfg.post_embedding_ln:
            self.ln = LayerNorm(self.cfg)

    def forward(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        """Embeds tokens."""
        rows = nn.functional.embedding(tokens, self.W_E)
        return self.ln(rows) if self.cfg.post_embedding_ln else rows
