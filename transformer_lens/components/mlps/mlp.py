"""The plain MLP."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from transformer_lens.components.linear import affine
from transformer_lens.components.mlps.can_be_used_as_mlp import CanBeUsedAsMLP
from transformer_lens.components.parameter import new_parameter
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.hook_points import HookPoint


class MLP(CanBeUsedAsMLP):
    """``act(x @ W_in + b_in) @ W_out + b_out``."""

    def __init__(self, config: dict | HookedTransformerConfig) -> None:
        super().__init__(config)
        assert self.d_mlp is not None
        d_model, dtype = self.cfg.d_model, self.cfg.dtype
        self.W_in = new_parameter(d_model, self.d_mlp, dtype=dtype, order=(1, 0))
        self.b_in = new_parameter(self.d_mlp, dtype=dtype, fill=0.0)
        self.W_out = new_parameter(self.d_mlp, d_model, dtype=dtype, order=(1, 0))
        self.b_out = new_parameter(d_model, dtype=dtype, fill=0.0)
        self.hook_pre = HookPoint("batch pos d_mlp")
        self.hook_post = HookPoint("batch pos d_mlp")
        self.select_activation_function()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """Returns what the MLP writes to the residual stream."""
        pre = self.hook_pre(affine(x, self.W_in, self.b_in, self.packing.get("W_in")))
        return affine(self.hook_post(self.activate(pre)), self.W_out, self.b_out, self.packing.get("W_out"))
