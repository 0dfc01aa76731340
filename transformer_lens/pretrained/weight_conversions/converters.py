"""Upstream's converters: each is the registry of tables under the name of a family, with upstream's parameter names.

The table is found by the model's own config, not by the name of the function.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.own_weights import convert_nanogpt, convert_upstream_format
from transformer_lens.loading.state_dicts import state_dict_of

StateDict = dict[str, torch.Tensor]
Converter = Callable[..., StateDict]


def _converter(family: str, parameter: str) -> Converter:
    """Returns the converter of a family: ``convert_<family>_weights(<parameter>, cfg)``."""
    signature = inspect.Signature(
        [
            inspect.Parameter(parameter, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=nn.Module),
            inspect.Parameter("cfg", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=HookedTransformerConfig),
        ],
        return_annotation=StateDict,
    )

    def convert(*args: Any, **kwargs: Any) -> StateDict:
        """Returns the weights of a live transformers model in our names and shapes, as views where possible.

        Raises:
            UnsupportedArchitectureError: No table is of the model's family.
        """
        return state_dict_of(*signature.bind(*args, **kwargs).args)

    convert.__name__ = convert.__qualname__ = f"convert_{family}_weights"
    vars(convert)["__signature__"] = signature
    return convert


convert_apertus_weights = _converter("apertus", "apertus")
convert_bert_weights = _converter("bert", "bert")
convert_bloom_weights = _converter("bloom", "bloom")
convert_coder_weights = _converter("coder", "model")
convert_gemma_weights = _converter("gemma", "gemma")
convert_gpt2_weights = _converter("gpt2", "gpt2")
convert_gpt_oss_weights = _converter("gpt_oss", "gpt_oss")
convert_gptj_weights = _converter("gptj", "gptj")
convert_hubert_weights = _converter("hubert", "hf_model")
convert_llama_weights = _converter("llama", "llama")
convert_mistral_weights = _converter("mistral", "mistral")
convert_mixtral_weights = _converter("mixtral", "mixtral")
convert_neo_weights = _converter("neo", "neo")
convert_neox_weights = _converter("neox", "neox")
convert_olmo2_weights = _converter("olmo2", "olmo2")
convert_olmo3_weights = _converter("olmo3", "olmo3")
convert_olmo_weights = _converter("olmo", "olmo")
convert_olmoe_weights = _converter("olmoe", "olmoe")
convert_opt_weights = _converter("opt", "opt")
convert_phi3_weights = _converter("phi3", "phi")
convert_phi_weights = _converter("phi", "phi")
convert_qwen2_weights = _converter("qwen2", "qwen")
convert_qwen3_weights = _converter("qwen3", "qwen")
convert_qwen_weights = _converter("qwen", "qwen")
convert_t5_weights = _converter("t5", "t5")


def convert_nanogpt_weights(old_state_dict: Mapping[str, torch.Tensor], cfg: HookedTransformerConfig) -> StateDict:
    """Returns the weights of a nanoGPT state dict in our names and shapes, as views; the dict is left as it is.

    Names may start with ``_orig_mod.``, which torch.compile adds. Biases that the state dict does not have are zero.
    """
    return convert_nanogpt(old_state_dict, cfg)


def convert_mingpt_weights(old_state_dict: Mapping[str, torch.Tensor], cfg: HookedTransformerConfig) -> StateDict:
    """Returns the weights of a state dict in minGPT's names in our names and shapes, as views; it is left as it is."""
    return convert_upstream_format("mingpt", old_state_dict, cfg)


def convert_neel_solu_old_weights(state_dict: Mapping[str, torch.Tensor], cfg: HookedTransformerConfig) -> StateDict:
    """Returns the weights of an older SoLU model in our names and shapes, as views; the state dict is left as it is."""
    return convert_upstream_format("neel-solu-old", state_dict, cfg)
