"""Which MLP a config asks for."""

from transformer_lens import anatomy
from transformer_lens.components.mlps.can_be_used_as_mlp import CanBeUsedAsMLP
from transformer_lens.components.mlps.gated_mlp import GatedMLP
from transformer_lens.components.mlps.mlp import MLP
from transformer_lens.components.mlps.moe import MoE
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig


class MLPFactory:
    """Makes MLPs."""

    @staticmethod
    def create_mlp(cfg: HookedTransformerConfig, index: int = 0) -> CanBeUsedAsMLP:
        """Makes the MLP of a block, the one at `index`."""
        if anatomy.has_experts(cfg, index):
            return MoE(cfg)
        return GatedMLP(cfg) if anatomy.mlp_of(cfg).is_gated else MLP(cfg)
