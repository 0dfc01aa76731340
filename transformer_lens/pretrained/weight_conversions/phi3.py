"""The converter of this family under upstream's name."""

from typing import Any

import torch

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.state_dicts import state_dict_of


def convert_phi3_weights(phi: Any, cfg: HookedTransformerConfig) -> dict[str, torch.Tensor]:
    """Returns the weights of a live transformers model in our names and shapes, as views where possible."""
    return state_dict_of(phi, cfg)
