"""Upstream's converters: each is the registry of tables under the name of a family, with upstream's parameter names.

The table is found by the model's own config, not by the name of the function.
"""

from collections.abc import Mapping

import torch
from torch import nn

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.own_weights import convert_nanogpt
from transformer_lens.loading.state_dicts import state_dict_of

StateDict = dict[str, torch.Tensor]


def convert_gpt2_weights(gpt2: nn.Module, cfg: HookedTransformerConfig) -> StateDict:
    """Returns the weights of a live transformers model in our names and shapes, as views where possible."""
    return state_dict_of(gpt2, cfg)


def convert_llama_weights(llama: nn.Module, cfg: HookedTransformerConfig) -> StateDict:
    """Returns the weights of a live transformers model in our names and shapes, as views where possible."""
    return state_dict_of(llama, cfg)


def convert_mistral_weights(mistral: nn.Module, cfg: HookedTransformerConfig) -> StateDict:
    """Returns the weights of a live transformers model in our names and shapes, as views where possible."""
    return state_dict_of(mistral, cfg)


def convert_neox_weights(neox: nn.Module, cfg: HookedTransformerConfig) -> StateDict:
    """Returns the weights of a live transformers model in our names and shapes, as views where possible."""
    return state_dict_of(neox, cfg)


def convert_phi3_weights(phi: nn.Module, cfg: HookedTransformerConfig) -> StateDict:
    """Returns the weights of a live transformers model in our names and shapes, as views where possible."""
    return state_dict_of(phi, cfg)


def convert_qwen2_weights(qwen: nn.Module, cfg: HookedTransformerConfig) -> StateDict:
    """Returns the weights of a live transformers model in our names and shapes, as views where possible."""
    return state_dict_of(qwen, cfg)


def convert_nanogpt_weights(old_state_dict: Mapping[str, torch.Tensor], cfg: HookedTransformerConfig) -> StateDict:
    """Returns the weights of a nanoGPT state dict in our names and shapes, as views; the dict is left as it is.

    Names may start with ``_orig_mod.``, which torch.compile adds. Biases that the state dict does not have are zero.
    """
    return convert_nanogpt(old_state_dict, cfg)
