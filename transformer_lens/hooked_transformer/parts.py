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
from transformer_lens.hooked_transformer.tokenizer import check_tokenizer, name_of, prepends_bos
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

    dataset: Any | None = None
    stop_tokens: tuple[int, ...] = ()
    _tokenizer: Any | None = None

    @property
    def tokenizer(self) -> Any | None:
        """The tokenizer as it was given, or None.

        However it is set, ``cfg.tokenizer_prepends_bos`` and ``cfg.tokenizer_name`` follow. Nothing of the tokenizer
        itself is changed by an assignment: ``set_tokenizer`` also sets its padding side and missing special tokens.
        """
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any | None) -> None:
        if tokenizer is not None:
            check_tokenizer(tokenizer)
        self._describe_tokenizer(tokenizer)
        self._tokenizer = tokenizer

    def _describe_tokenizer(self, tokenizer: Any | None) -> None:
        # A subclass that builds itself may set the tokenizer first; what is said of it then is refreshed in use.
        cfg = self.__dict__.get("cfg")
        if cfg is None:
            return
        prepends = None if tokenizer is None else prepends_bos(tokenizer)
        name = None if tokenizer is None else name_of(tokenizer)
        # The first tokenizer may be one without a name that cfg has the name of.
        if name is not None or self._tokenizer is not None:
            cfg.tokenizer_name = name
        cfg.tokenizer_prepends_bos = prepends

    def device_of_block(self, index: int) -> torch.device:
        """Tells where a block computes; the embeddings are with block 0, norm and unembedding with the last."""
        if self.cfg.n_devices == 1:
            return torch.device(self.cfg.device or "cpu")
        return torch.device(get_device_for_block_index(index, self.cfg))
