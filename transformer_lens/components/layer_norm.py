"""LayerNorm with its weight and bias."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transformer_lens.components.parameter import new_parameter
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.hook_points import HookPoint

Normed = Float[Tensor, "batch pos length"] | Float[Tensor, "batch pos head length"]


class LayerNorm(nn.Module):
    """``hook_normalized((x - mean) / scale * w + b)``, ``scale = sqrt(var + eps)`` at `hook_scale`."""

    def __init__(self, cfg: dict | HookedTransformerConfig, length: int | None = None) -> None:
        super().__init__()
        self.cfg = HookedTransformerConfig.unwrap(cfg)
        self.eps = self.cfg.eps
        self.length = self.cfg.d_model if length is None else length
        self.w = new_parameter(self.length, dtype=self.cfg.dtype, fill=1.0)
        self.b = new_parameter(self.length, dtype=self.cfg.dtype, fill=0.0)
        self.hook_scale = HookPoint("batch pos ... one")
        self.hook_normalized = HookPoint("batch pos ... length")

    def forward(self, x: Normed) -> Normed:
        """Normalises the last axis."""
        if self.cfg.dtype not in (torch.float32, torch.float64):
            x = x.to(torch.float32)
        x = x - x.mean(-1, keepdim=True)
        scale = self.hook_scale((x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        return self.hook_normalized(x / scale * self.w + self.b).to(self.cfg.dtype)
