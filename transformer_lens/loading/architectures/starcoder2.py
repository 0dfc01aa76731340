"""StarCoder 2: Llama's attention with biases, LayerNorms, an MLP without a gate, a window on every layer."""

from typing import Any

from transformer_lens.loading.architectures import llama_like
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Take, When

_DEFAULTS = {
    "hidden_size": 3072,
    "num_attention_heads": 24,
    "num_key_value_heads": 2,
    "intermediate_size": 12288,
    "num_hidden_layers": 30,
    "max_position_embeddings": 4096,
    "vocab_size": 49152,
}
_BIAS = When("use_bias", True)


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.ungroup_if_equal(llama_like.read_shape(config, _DEFAULTS))
    config.flag("use_bias", True)
    return {
        **fields,
        "act_fn": config.activation("hidden_act", "gelu_pytorch_tanh"),
        "eps": config.number("norm_epsilon", 1e-5, above=0),
        "normalization_type": "LN",
        "gated_mlp": False,
        **llama_like.window(config.window("sliding_window", None), ["sliding_attention"] * fields["n_layers"]),
        **config.rotary(fields["d_head"], fields["n_ctx"]),
    }


STARCODER2 = Architecture(
    name="Starcoder2ForCausalLM",
    model_type="starcoder2",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once={**llama_like.ONCE, "ln_final.b": Take("{p}norm.bias", "d_model")},
    block={
        **{name: recipe for name, recipe in llama_like.BLOCK.items() if not name.startswith("mlp.")},
        **llama_like.attention_biases(_BIAS),
        "ln1.b": Take("{p}layers.{i}.input_layernorm.bias", "d_model"),
        "ln2.b": Take("{p}layers.{i}.post_attention_layernorm.bias", "d_model"),
        "mlp.W_in": Take("{p}layers.{i}.mlp.c_fc.weight", "d_mlp d_model"),
        "mlp.b_in": Take("{p}layers.{i}.mlp.c_fc.bias", "d_mlp", when=_BIAS),
        "mlp.W_out": Take("{p}layers.{i}.mlp.c_proj.weight", "d_model d_mlp"),
        "mlp.b_out": Take("{p}layers.{i}.mlp.c_proj.bias", "d_model", when=_BIAS),
    },
    dropped=llama_like.DROPPED,
    read_config=_read,
    ignored={
        "mlp_type": "the MLP of the class has no gate",
        "norm_type": "the norms of the class are LayerNorms",
    },
    required={**llama_like.REQUIRED, "attention_bias": False, "mlp_bias": False},
    ties_by_default=True,
)
