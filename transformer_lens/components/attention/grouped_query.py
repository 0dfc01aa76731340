"""Attention in which groups of heads share keys and values."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transformer_lens.components.attention.abstract_attention import AbstractAttention
from transformer_lens.components.parameter import new_parameter


class GroupedQueryAttention(AbstractAttention):
    """Grouped-query attention (Ainslie et al., 2023): parameters ``_W_K``, ``_W_V`` [kv_head d_model d_head].

    ``W_K``, ``W_V``, ``b_K`` and ``b_V`` are the same repeated for every query head.
    """

    _W_K: nn.Parameter
    _W_V: nn.Parameter
    _b_K: nn.Parameter
    _b_V: nn.Parameter

    def make_key_value_parameters(self) -> None:
        """Registers _W_K, _W_V, _b_K and _b_V."""
        cfg, n_kv_heads = self.cfg, self.anatomy.n_kv_heads
        if not self.anatomy.is_grouped:
            raise ValueError("Grouped-query attention needs cfg.n_key_value_heads.")
        if cfg.n_heads % n_kv_heads:
            raise ValueError(f"{cfg.n_heads} heads cannot share {n_kv_heads} keys evenly.")
        shape = (n_kv_heads, cfg.d_model, cfg.d_head)
        self._W_K = new_parameter(*shape, dtype=cfg.dtype, order=(0, 2, 1))
        self._W_V = new_parameter(*shape, dtype=cfg.dtype, order=(0, 2, 1))
        self._b_K = new_parameter(n_kv_heads, cfg.d_head, dtype=cfg.dtype, fill=0.0)
        self._b_V = new_parameter(n_kv_heads, cfg.d_head, dtype=cfg.dtype, fill=0.0)

    def key_value_names(self) -> tuple[str, str, str, str]:
        """Returns the names of the grouped weights, or of those of every head if the config ungroups them."""
        if self.cfg.ungroup_grouped_query_attention:
            return "W_K", "W_V", "b_K", "b_V"
        return "_W_K", "_W_V", "_b_K", "_b_V"

    def _repeated(self, tensor: Tensor) -> Tensor:
        return torch.repeat_interleave(tensor, self.cfg.n_heads // tensor.shape[0], dim=0)

    @property
    def W_K(self) -> Float[Tensor, "head d_model d_head"]:  # type: ignore[override]
        """Key weights of every query head."""
        return self._repeated(self.numbers("_W_K"))

    @W_K.setter
    def W_K(self, value: nn.Parameter) -> None:
        self._W_K = value

    @property
    def W_V(self) -> Float[Tensor, "head d_model d_head"]:  # type: ignore[override]
        """Value weights of every query head."""
        return self._repeated(self.numbers("_W_V"))

    @W_V.setter
    def W_V(self, value: nn.Parameter) -> None:
        self._W_V = value

    @property
    def b_K(self) -> Float[Tensor, "head d_head"]:  # type: ignore[override]
        """Key biases of every query head."""
        return self._repeated(self._b_K)

    @b_K.setter
    def b_K(self, value: nn.Parameter) -> None:
        self._b_K = value

    @property
    def b_V(self) -> Float[Tensor, "head d_head"]:  # type: ignore[override]
        """Value biases of every query head."""
        return self._repeated(self._b_V)

    @b_V.setter
    def b_V(self, value: nn.Parameter) -> None:
        self._b_V = value
