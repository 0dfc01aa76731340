"""Attention in which every head has keys and values of its own."""

from __future__ import annotations

from transformer_lens.components.attention.abstract_attention import AbstractAttention
from transformer_lens.components.parameter import new_parameter


class Attention(AbstractAttention):
    """Multi-head attention: ``W_K``, ``W_V`` [head d_model d_head]."""

    def make_key_value_parameters(self) -> None:
        """Registers W_K, W_V, b_K and b_V."""
        cfg = self.cfg
        shape = (cfg.n_heads, cfg.d_model, cfg.d_head)
        self.W_K = new_parameter(*shape, dtype=cfg.dtype, order=(0, 2, 1))
        self.W_V = new_parameter(*shape, dtype=cfg.dtype, order=(0, 2, 1))
        self.b_K = new_parameter(cfg.n_heads, cfg.d_head, dtype=cfg.dtype, fill=0.0)
        self.b_V = new_parameter(cfg.n_heads, cfg.d_head, dtype=cfg.dtype, fill=0.0)

    def key_value_names(self) -> tuple[str, str, str, str]:
        """Returns W_K, W_V, b_K and b_V."""
        return "W_K", "W_V", "b_K", "b_V"
