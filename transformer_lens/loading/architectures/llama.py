"""Llama, Yi, SmolLM and all that share the class."""

from typing import Any

from transformer_lens.loading.architectures import llama_like
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Take, When

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
    block={
        **llama_like.BLOCK,
        "attn.b_Q": Take("{p}layers.{i}.self_attn.q_proj.bias", "(head d_head)", when=_ATTENTION_BIAS),
        "attn.b_K": Take("{p}layers.{i}.self_attn.k_proj.bias", "(kv_head d_head)", when=_ATTENTION_BIAS),
        "attn.b_V": Take("{p}layers.{i}.self_attn.v_proj.bias", "(kv_head d_head)", when=_ATTENTION_BIAS),
        "attn.b_O": Take("{p}layers.{i}.self_attn.o_proj.bias", "d_model", when=_ATTENTION_BIAS),
        "mlp.b_in": Take("{p}layers.{i}.mlp.up_proj.bias", "d_mlp", when=_MLP_BIAS),
        "mlp.b_gate": Take("{p}layers.{i}.mlp.gate_proj.bias", "d_mlp", when=_MLP_BIAS),
        "mlp.b_out": Take("{p}layers.{i}.mlp.down_proj.bias", "d_model", when=_MLP_BIAS),
    },
    dropped=llama_like.DROPPED,
    read_config=_read,
    ignored={
        "is_llama_config": "a mark of the training code",
        "max_sequence_length": "the name that max_position_embeddings had; transformers does not read it",
    },
    required=llama_like.REQUIRED,
)
