"""The least that config.json of each family says, and what tests do with it."""

import json

from transformer_lens.loading.architectures import find
from transformer_lens.loading.conversion import read_config

SIZES = {"hidden_size": 48, "num_attention_heads": 6, "intermediate_size": 80, "vocab_size": 113,
         "max_position_embeddings": 64, "num_hidden_layers": 4, "num_key_value_heads": 3}  # fmt: skip
CLASSES = {
    "gpt2": "GPT2LMHeadModel", "gpt_neox": "GPTNeoXForCausalLM", "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM", "phi3": "Phi3ForCausalLM",
}  # fmt: skip
BASE = {
    "gpt2": {"n_embd": 48, "n_head": 6, "n_layer": 4, "vocab_size": 113, "n_positions": 64},
    "gpt_neox": {name: value for name, value in SIZES.items() if name != "num_key_value_heads"},
    **dict.fromkeys(("llama", "mistral", "qwen2", "phi3"), SIZES),
}
ROTARY = ("gpt_neox", "llama", "mistral", "qwen2", "phi3")


def hf(family, **fields):
    return {**BASE[family], "model_type": family, "architectures": [CLASSES[family]], **fields}


def read(config):
    return read_config(find(config, "it"), config, "it")


def saved(variant, spelling=None):
    """What transformers writes to config.json."""
    config = variant.config()
    config.architectures = [CLASSES[config.model_type]]
    return json.loads(config.to_json_string(use_diff=spelling != "all"))
