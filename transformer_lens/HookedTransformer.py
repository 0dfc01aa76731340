"""A transformer of which every activation has a name, and can be read or replaced."""

import copy
import logging
from typing import Any, TypeVar

from torch import nn

from transformer_lens import anatomy, loading
from transformer_lens import utilities as utils
from transformer_lens.ActivationCache import ActivationCache
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.components.embed import Embed
from transformer_lens.components.layer_norm import LayerNorm
from transformer_lens.components.layer_norm_pre import LayerNormPre
from transformer_lens.components.mlps.gated_mlp import GatedMLP
from transformer_lens.components.mlps.mlp import MLP
from transformer_lens.components.norms import norm_module
from transformer_lens.components.parameter import parameter_device, parameters_on, take_pending_parameter_device
from transformer_lens.components.pos_embed import PosEmbed
from transformer_lens.components.rms_norm import RMSNorm
from transformer_lens.components.rms_norm_pre import RMSNormPre
from transformer_lens.components.transformer_block import TransformerBlock
from transformer_lens.components.unembed import Unembed
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.FactoredMatrix import FactoredMatrix
from transformer_lens.hook_points import HookPoint
from transformer_lens.hooked_transformer.generation import GenerationMixin
from transformer_lens.hooked_transformer.initialization import InitializationMixin
from transformer_lens.hooked_transformer.input_error import InputError
from transformer_lens.hooked_transformer.output import Loss, LossPerToken, Output, SingleLoss
from transformer_lens.hooked_transformer.placement import DTYPE_FROM_STRING, PlacementMixin, refuse_absent_device
from transformer_lens.hooked_transformer.pretrained import PretrainedMixin
from transformer_lens.hooked_transformer.processing import ProcessingMixin
from transformer_lens.hooked_transformer.sample_data import SampleDataMixin
from transformer_lens.hooked_transformer.saving import SavingMixin
from transformer_lens.hooked_transformer.showing import ShowingMixin
from transformer_lens.hooked_transformer.toggles import TogglesMixin
from transformer_lens.hooked_transformer.typed_calls import TypedCalls
from transformer_lens.hooked_transformer.weight_views import WeightViewsMixin
from transformer_lens.HookedRootModule import HookedRootModule
from transformer_lens.loading.process_weights import ProcessWeights
from transformer_lens.loading.sources import load_tokenizer, resolve_tokenizer
from transformer_lens.loading.sources.names import NON_HF_HOSTED_MODEL_NAMES
from transformer_lens.utilities import devices
from transformer_lens.utilities.activation_functions import apply_softcap, softcap_enabled
from transformer_lens.utilities.architectures import POST_NORM_ARCHITECTURES
from transformer_lens.utilities.defaults_utils import USE_DEFAULT_VALUE
from transformer_lens.utilities.devices import move_to_and_update_config, warn_if_mps
from transformer_lens.utilities.initialization_utils import (
    init_kaiming_normal_,
    init_kaiming_uniform_,
    init_xavier_normal_,
    init_xavier_uniform_,
)
from transformer_lens.utilities.multi_gpu import get_best_available_device, get_device_for_block_index
from transformer_lens.utilities.typed_module_list import TypedModuleList

__all__ = [
    "MLP",
    "NON_HF_HOSTED_MODEL_NAMES",
    "POST_NORM_ARCHITECTURES",
    "ProcessWeights",
    "warn_if_mps",
    "GatedMLP",
    "TypedModuleList",
    "apply_softcap",
    "devices",
    "get_best_available_device",
    "get_device_for_block_index",
    "init_kaiming_normal_",
    "init_kaiming_uniform_",
    "init_xavier_normal_",
    "init_xavier_uniform_",
    "move_to_and_update_config",
    "softcap_enabled",
    "DTYPE_FROM_STRING",
    "USE_DEFAULT_VALUE",
    "ActivationCache",
    "Embed",
    "FactoredMatrix",
    "HookPoint",
    "HookedRootModule",
    "HookedTransformer",
    "HookedTransformerConfig",
    "HookedTransformerKeyValueCache",
    "LayerNorm",
    "LayerNormPre",
    "Loss",
    "LossPerToken",
    "Output",
    "PosEmbed",
    "RMSNorm",
    "RMSNormPre",
    "SingleLoss",
    "TransformerBlock",
    "TransformerLensKeyValueCache",
    "Unembed",
    "loading",
    "utils",
]

HookedTransformerKeyValueCache = TransformerLensKeyValueCache
T = TypeVar("T", bound="HookedTransformer")


class HookedTransformer(
    TypedCalls,
    PretrainedMixin,
    ProcessingMixin,
    GenerationMixin,
    SampleDataMixin,
    SavingMixin,
    ShowingMixin,
    WeightViewsMixin,
    InitializationMixin,
    TogglesMixin,
    PlacementMixin,
    HookedRootModule,
):
    """A decoder-only transformer with a hook point at every activation.

    ``r_0 = embed(tokens) + pos_embed``; each block adds to it what its attention and MLP write; the logits are
    ``unembed(ln_final(r_n))``. Which of these parts there are, and of which kind, is said by ``cfg``.

    The class may be used as it is or subclassed. A subclass may count on this, and tests hold it:

    * ``cls.from_pretrained`` returns an instance of ``cls``, made by ``cls(cfg, tokenizer, move_to_device=…,
      default_padding_side=…)``; what its ``__init__`` adds is left alone and is real, never on the meta device.
    * The forward pass goes through the attributes ``embed``, ``blocks``, ``ln_final``, ``unembed``, and in blocks
      ``attn``, ``mlp``, norms and hook points: any of them may be replaced by a module of its own, before a new
      call of ``setup()``, which may be called any number of times.
    * Inside, the model is called as ``self(input, **keywords)``: only the input comes by position.
    * ``tokenizer``, ``dataset``, ``stop_tokens`` and ``load_report`` have defaults on the class, for subclasses that
      build themselves without this ``__init__``.

    Attributes:
        cfg: What the model is. Its switches, such as ``use_attn_result``, may be set at any time.
        tokenizer: The tokenizer as it was given, or None; all that needs none works without. Another may be assigned at
            any time: what ``cfg`` says of it follows.
        stop_tokens: What ends a text besides the tokenizer's EOS: the tokens of the checkpoint's generation config.
        load_report: What :meth:`from_pretrained` did, or None.
        dataset: Sample of training data, once loaded.
    """

    def __init__(
        self,
        cfg: HookedTransformerConfig | dict[str, Any],
        tokenizer: Any | None = None,
        move_to_device: bool = True,
        default_padding_side: str | None = "right",
    ) -> None:
        """Builds the model with random weights.

        Args:
            cfg: What to build; a dict becomes a config.
            tokenizer: A transformers tokenizer, kept as the object it is; None loads ``cfg.tokenizer_name``, if that
                is set.
            move_to_device: Whether the model is put on ``cfg.device``; otherwise it is on the CPU.
            default_padding_side: "left" or "right", set on the tokenizer; None leaves the tokenizer's own.

        Raises:
            InputError: If `cfg` is a name, leaves open a vocabulary that no tokenizer gives, or wants a device that is
                not here.
        """
        super().__init__()
        if isinstance(cfg, str):
            raise InputError(
                "cfg is a config or a dict of its fields; a pretrained model is loaded by "
                f"HookedTransformer.from_pretrained({cfg!r})."
            )
        device = take_pending_parameter_device()
        is_loaded = device is not None or parameter_device() is not None
        # A copy: casting or moving this model must not change what another model of the same config says of itself.
        self.cfg = copy.copy(HookedTransformerConfig.unwrap(cfg))
        if move_to_device and not is_loaded:
            refuse_absent_device(self.cfg.device)
        if tokenizer is None and self.cfg.tokenizer_name is not None and not is_loaded:
            tokenizer = load_tokenizer(
                resolve_tokenizer(self.cfg.tokenizer_name), trust_remote_code=self.cfg.trust_remote_code
            )
        if tokenizer is not None:
            self.set_tokenizer(tokenizer, default_padding_side=default_padding_side)
        else:
            self.tokenizer = None
            if default_padding_side == "left":
                logging.warning("default_padding_side='left' has no effect: there is no tokenizer.")
        if self.cfg.d_vocab == -1:
            raise InputError("cfg.d_vocab is not set, and there is no tokenizer to take it from: give one of them.")
        with parameters_on(parameter_device() if device is None else device):
            self._build()
        if not is_loaded:
            if self.cfg.init_weights:
                self.init_weights()
            if move_to_device:
                self.move_model_modules_to_device()
        self.dataset = None
        self.setup()

    def _build(self) -> None:
        cfg = self.cfg
        self.embed = Embed(cfg)
        self.hook_embed = HookPoint("batch pos d_model")
        if anatomy.embedding_of(cfg).has_positions:
            self.pos_embed = PosEmbed(cfg)
            self.hook_pos_embed = HookPoint("batch pos d_model")
        if cfg.use_hook_tokens:
            self.hook_tokens = HookPoint("batch pos")
        self.blocks = nn.ModuleList([TransformerBlock(cfg, index) for index in range(cfg.n_layers)])
        norm = anatomy.final_norm_of(cfg)
        if norm is not None:
            self.ln_final = norm_module(cfg, norm)
        self.unembed = Unembed(cfg)
