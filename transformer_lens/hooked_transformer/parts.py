"""What every concern of the model may rely on."""

from typing import Any

import torch
from torch import nn

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.HookedRootModule import HookedRootModule
from transformer_lens.utilities.multi_gpu import get_device_for_block_index


class ModelParts(HookedRootModule):
    """Declares the parts of a model that its concerns share.

    Modules are declared without a value, since a class attribute would hide the registered module. What is no module
    has its default here, so that a subclass which never runs ``HookedTransformer.__init__`` has it too.
    """

    cfg: HookedTransformerConfig
    embed: nn.Module
    hook_embed: nn.Module
    pos_embed: nn.Module
    hook_pos_embed: nn.Module
    hook_tokens: nn.Module
    blocks: Any
    ln_final: nn.Module
    unembed: nn.Module

    tokenizer: Any | None = None
    dataset: Any | None = None

    def device_of_block(self, index: int) -> torch.device:
        """Tells where a block computes; the embeddings are with block 0, norm and unembedding with the last."""
        if self.cfg.n_devices == 1:
            return torch.device(self.cfg.device or "cpu")
        return torch.device(get_device_for_block_index(index, self.cfg))
