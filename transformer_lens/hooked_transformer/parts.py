"""What every concern of the model may rely on."""

from typing import Any

import torch
from torch import nn

from transformer_lens.components.embed import Embed
from transformer_lens.components.pos_embed import PosEmbed
from transformer_lens.components.transformer_block import TransformerBlock
from transformer_lens.components.unembed import Unembed
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.hook_points import HookPoint
from transformer_lens.HookedRootModule import HookedRootModule
from transformer_lens.utilities.multi_gpu import get_device_for_block_index
from transformer_lens.utilities.typed_module_list import TypedModuleList


class ModelParts(HookedRootModule):
    """Declares the parts of a model that its concerns share.

    Modules are declared without a value, since a class attribute would hide the registered module. What is no module
    has its default here, so that a subclass which never runs ``HookedTransformer.__init__`` has it too.
    """

    cfg: HookedTransformerConfig
    embed: Embed
    hook_embed: HookPoint
    pos_embed: PosEmbed
    hook_pos_embed: HookPoint
    hook_tokens: HookPoint
    blocks: TypedModuleList[TransformerBlock]
    ln_final: nn.Module
    unembed: Unembed

    tokenizer: Any = None
    dataset: Any | None = None

    def device_of_block(self, index: int) -> torch.device:
        """Tells where a block computes; the embeddings are with block 0, norm and unembedding with the last."""
        if self.cfg.n_devices == 1:
            return torch.device(self.cfg.device or "cpu")
        return torch.device(get_device_for_block_index(index, self.cfg))
