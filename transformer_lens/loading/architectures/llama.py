"""Llama, Yi, SmolLM and all that share the class."""

from typing import Any

from transformer_lens.loading.architectures import llama_like
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import When

_ATTENTION_BIAS = When("attention_bias", False)
_MLP_BIAS = When("mlp_bias", False)
_DEFAULTS = {
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "max_position_embeddings": 2048,
    "vocab_size": 32000,
}


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.ungroup_if_equal(llama_like.read_sizes(config, _DEFAULTS))
    config.flag("attention_bias", False)
    return {
        **fields,
        "gated_mlp_bias": config.flag("mlp_bias", False),
        **config.rotary(fields["d_head"], fields["n_ctx"]),
    }


LLAMA = Architecture(
    name="LlamaForCausalLM",
    model_type="llama",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block={**llama_like.BLOCK, **llama_like.attention_biases(_ATTENTION_BIAS), **llama_like.mlp_biases(_MLP_BIAS)},
    dropped=llama_like.DROPPED,
    read_config=_read,
    ignored={
        "is_llama_config": "a mark of the training code",
        "max_sequence_length": "the name that max_position_embeddings had; transformers does not read it",
    },
    required=llama_like.REQUIRED,
)
