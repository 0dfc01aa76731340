"""LayerNorm whose weight and bias are folded into what reads it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.hook_points import HookPoint

Normed = Float[Tensor, "batch pos length"] | Float[Tensor, "batch pos head length"]


class LayerNormPre(nn.Module):
    """``hook_normalized((x - mean) / scale)``, ``scale = sqrt(var + eps)`` at `hook_scale`."""

    def __init__(self, cfg: dict | HookedTransformerConfig) -> None:
        super().__init__()
        self.cfg = HookedTransformerConfig.unwrap(cfg)
        self.eps = self.cfg.eps
        self.hook_scale = HookPoint("batch pos ... one")
        self.hook_normalized = HookPoint("batch pos ... length")

    def forward(self, x: Normed) -> Normed:
        """Normalises the last axis."""
        if self.cfg.dtype not in (torch.float32, torch.float64):
            x = x.to(torch.float32)
        x = x - x.mean(-1, keepdim=True)
        scale = self.hook_scale((x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        return self.hook_normalized(x / scale).to(self.cfg.dtype)
