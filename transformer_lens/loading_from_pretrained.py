"""Upstream's path of the loader's functions: the same objects as in ``transformer_lens.loading``."""

from transformer_lens.loading import (
    DEFAULT_MODEL_ALIASES,
    MODEL_ALIASES,
    NEED_REMOTE_CODE_MODELS,
    NON_HF_HOSTED_MODEL_NAMES,
    OFFICIAL_MODEL_NAMES,
    convert_hf_model_config,
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
    convert_gpt2_weights,
    convert_llama_weights,
    convert_mistral_weights,
    convert_neox_weights,
    convert_phi3_weights,
    convert_qwen2_weights,
)

PYTHIA_CHECKPOINTS = list(PYTHIA_STEPS)
PYTHIA_V0_CHECKPOINTS = list(PYTHIA_V0_STEPS)
STANFORD_CRFM_CHECKPOINTS = list(STANFORD_STEPS)

__all__ = [
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
