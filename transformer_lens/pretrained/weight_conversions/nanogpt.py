"""The converter of this family under upstream's name."""

from typing import Any

import torch

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.own_weights import convert_nanogpt


def convert_nanogpt_weights(old_state_dict: Any, cfg: HookedTransformerConfig) -> dict[str, torch.Tensor]:
    """Returns the weights of a nanoGPT state dict in our names and shapes, as views; the dict is left as it is.

    Names may start with ``_orig_mod.``, which torch.compile adds. Biases that the state dict does not have are zero.
    """
    return convert_nanogpt(old_state_dict, cfg)
