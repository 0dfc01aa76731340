"""What every MLP shares."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from transformer_lens import anatomy
from transformer_lens.components.matrix_owner import MatrixOwner
from transformer_lens.components.norms import norm_module
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.factories.activation_function_factory import ActivationFunctionFactory
from transformer_lens.hook_points import HookPoint


class CanBeUsedAsMLP(MatrixOwner):
    """The base of modules that stand at ``block.mlp``: one activation tensor in, one of the same shape out."""

    act_fn: Callable[..., Tensor]
    hook_mid: HookPoint | None
    ln: nn.Module | None

    def __init__(self, config: dict | HookedTransformerConfig) -> None:
        super().__init__()
        self.cfg = HookedTransformerConfig.unwrap(config)
        self.anatomy = anatomy.mlp_of(self.cfg)
        self.d_mlp = self.cfg.d_mlp

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """Returns what the module writes to the residual stream."""
        raise NotImplementedError(f"{type(self).__name__} stands at block.mlp and has no forward.")

    def select_activation_function(self) -> None:
        """Sets the activation, and for SoLU the norm behind it."""
        self.act_fn = ActivationFunctionFactory.pick_activation_function(self.cfg)
        if self.anatomy.inner_norm is not None:
            self.hook_mid = HookPoint("batch pos d_mlp")
            self.ln = norm_module(self.cfg, self.anatomy.inner_norm)

    def activate(self, pre: Float[Tensor, "batch pos d_mlp"]) -> Float[Tensor, "batch pos d_mlp"]:
        """Returns the activation of `pre`; for SoLU through `hook_mid` and the norm."""
        if self.anatomy.inner_norm is None:
            return self.act_fn(pre)
        assert self.hook_mid is not None and self.ln is not None
        return self.ln(self.hook_mid(self.act_fn(pre)))
