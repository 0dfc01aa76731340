"""Learned position embedding."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn

from transformer_lens.components.parameter import new_parameter
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.utilities.tensors import get_offset_position_ids


class PosEmbed(nn.Module):
    """Looks up a row of ``W_pos`` for every position."""

    def __init__(self, cfg: dict | HookedTransformerConfig) -> None:
        super().__init__()
        self.cfg = HookedTransformerConfig.unwrap(cfg)
        self.W_pos = new_parameter(self.cfg.n_ctx, self.cfg.d_model, dtype=self.cfg.dtype)

    def forward(
        self,
        tokens: Int[Tensor, "batch pos"],
        past_kv_pos_offset: int = 0,
        attention_mask: Int[Tensor, "batch offset_pos"] | None = None,
    ) -> Float[Tensor, "batch new_pos d_model"]:
        """Embeds the positions of tokens, in new memory.

        Args:
            tokens: Only their shape counts.
            past_kv_pos_offset: Positions that a key-value cache holds already.
            attention_mask: 1 for real tokens, 0 for padding, over cached and new positions; positions count real
                tokens only, and padding is embedded as zero.
        """
        length = tokens.shape[-1]
        if attention_mask is None:
            rows = self.W_pos[past_kv_pos_offset : past_kv_pos_offset + length]
            # A copy: a view would let whoever writes into what this returns write into the parameter.
            return rows.repeat(tokens.shape[0], 1, 1)
        positions = get_offset_position_ids(past_kv_pos_offset, attention_mask)
        padding = attention_mask[:, past_kv_pos_offset : past_kv_pos_offset + length] == 0
        return nn.functional.embedding(positions, self.W_pos).masked_fill(padding.unsqueeze(-1), 0.0)
