"""Upstream's path of the loader's functions: the same objects as in ``transformer_lens.loading``."""

from dataclasses import dataclass, fields
from typing import Any

from transformer_lens import utilities as utils
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading import (
    DEFAULT_MODEL_ALIASES,
    MODEL_ALIASES,
    NEED_REMOTE_CODE_MODELS,
    NON_HF_HOSTED_MODEL_NAMES,
    OFFICIAL_MODEL_NAMES,
    convert_hf_model_config,
    convert_neel_model_config,
    fill_missing_keys,
    get_checkpoint_labels,
    get_num_params_of_pretrained,
    get_official_model_name,
    get_pretrained_model_config,
    get_pretrained_state_dict,
    make_model_alias_map,
)
from transformer_lens.loading.sources.training_checkpoints import PYTHIA_STEPS, PYTHIA_V0_STEPS, STANFORD_STEPS
from transformer_lens.pretrained.weight_conversions import (
    convert_apertus_weights,
    convert_bert_weights,
    convert_bloom_weights,
    convert_coder_weights,
    convert_gemma_weights,
    convert_gpt2_weights,
    convert_gpt_oss_weights,
    convert_gptj_weights,
    convert_hubert_weights,
    convert_llama_weights,
    convert_mingpt_weights,
    convert_mistral_weights,
    convert_mixtral_weights,
    convert_neel_solu_old_weights,
    convert_neo_weights,
    convert_neox_weights,
    convert_olmo2_weights,
    convert_olmo3_weights,
    convert_olmo_weights,
    convert_olmoe_weights,
    convert_opt_weights,
    convert_phi3_weights,
    convert_phi_weights,
    convert_qwen2_weights,
    convert_qwen3_weights,
    convert_qwen_weights,
    convert_t5_weights,
)
from transformer_lens.utilities.architectures import POST_NORM_ARCHITECTURES
from transformer_lens.utilities.hf_utils import get_rotary_pct_from_config
from transformer_lens.utilities.left_out import refusing

PYTHIA_CHECKPOINTS = list(PYTHIA_STEPS)
PYTHIA_V0_CHECKPOINTS = list(PYTHIA_V0_STEPS)
STANFORD_CRFM_CHECKPOINTS = list(STANFORD_STEPS)

__all__ = [
    "Config",
    "HookedTransformerConfig",
    "POST_NORM_ARCHITECTURES",
    "get_basic_config",
    "get_rotary_pct_from_config",
    "utils",
    "convert_apertus_weights",
    "convert_bert_weights",
    "convert_bloom_weights",
    "convert_coder_weights",
    "convert_gemma_weights",
    "convert_gptj_weights",
    "convert_hubert_weights",
    "convert_mixtral_weights",
    "convert_neo_weights",
    "convert_olmo_weights",
    "convert_olmo2_weights",
    "convert_olmo3_weights",
    "convert_olmoe_weights",
    "convert_opt_weights",
    "convert_phi_weights",
    "convert_qwen_weights",
    "convert_qwen3_weights",
    "convert_t5_weights",
    "convert_gpt_oss_weights",
    "DEFAULT_MODEL_ALIASES",
    "MODEL_ALIASES",
    "NEED_REMOTE_CODE_MODELS",
    "NON_HF_HOSTED_MODEL_NAMES",
    "OFFICIAL_MODEL_NAMES",
    "PYTHIA_CHECKPOINTS",
    "PYTHIA_V0_CHECKPOINTS",
    "STANFORD_CRFM_CHECKPOINTS",
    "convert_gpt2_weights",
    "convert_hf_model_config",
    "convert_mingpt_weights",
    "convert_neel_model_config",
    "convert_neel_solu_old_weights",
    "convert_llama_weights",
    "convert_mistral_weights",
    "convert_neox_weights",
    "convert_phi3_weights",
    "convert_qwen2_weights",
    "fill_missing_keys",
    "get_checkpoint_labels",
    "get_num_params_of_pretrained",
    "get_official_model_name",
    "get_pretrained_model_config",
    "get_pretrained_state_dict",
    "make_model_alias_map",
]


@dataclass
class Config:
    """The sizes of a model alone, as in a GPT-2 written by hand; the defaults are GPT-2 small's."""

    d_model: int = 768
    debug: bool = True
    layer_norm_eps: float = 1e-5
    d_vocab: int = 50257
    init_range: float = 0.02
    n_ctx: int = 1024
    d_head: int = 64
    d_mlp: int = 3072
    n_heads: int = 12
    n_layers: int = 12


def get_basic_config(model_name: str, **kwargs: Any) -> Config:
    """Returns the sizes of a pretrained model.

    Args:
        model_name: A folder, a hub id or an alias.
        **kwargs: Of `get_pretrained_model_config`.
    """
    cfg = get_pretrained_model_config(model_name, **kwargs)
    known = vars(cfg)
    sizes = {field.name: known[field.name] for field in fields(Config) if field.name in known}
    return Config(**sizes, layer_norm_eps=cfg.eps, init_range=cfg.initializer_range)


__getattr__ = refusing(__name__)
