"""Upstream's place of `RMSNorm`."""

from jaxtyping import Float
from torch import Tensor

from transformer_lens.components.norms import RMSNorm
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.hook_points import HookPoint

RMSNormInput = Float[Tensor, "batch pos length"] | Float[Tensor, "batch_pos length"]

__all__ = ["HookPoint", "HookedTransformerConfig", "RMSNorm", "RMSNormInput"]
