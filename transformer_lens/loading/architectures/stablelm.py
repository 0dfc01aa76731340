"""StableLM 2: Llama with LayerNorms, partial rotation, and in its 12B form branches side by side behind one norm."""

from typing import Any

from transformer_lens.loading.architectures import llama_like
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Choose, Recipe, Stack, Take, When

_DEFAULTS = {
    "hidden_size": 2560,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "intermediate_size": 6912,
    "num_hidden_layers": 32,
    "max_position_embeddings": 4096,
    "vocab_size": 50304,
}


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.ungroup_if_equal(llama_like.read_shape(config, _DEFAULTS))
    config.flag("use_qkv_bias", False)
    normed = config.flag("qk_layernorm", False)
    return {
        **fields,
        "act_fn": config.activation("hidden_act", "silu"),
        "eps": config.number("layer_norm_eps", 1e-5, above=0),
        "normalization_type": "LN",
        "parallel_attn_mlp": config.flag("use_parallel_residual", False),
        **({"use_qk_norm": True, "qk_norm_kind": "LN by head"} if normed else {}),
        **config.rotary(fields["d_head"], fields["n_ctx"], default_fraction=0.25),
    }


def _second_norm(leaf: str) -> Recipe:
    """Returns the recipe of ln2, which is the file's one norm where branches stand side by side."""
    keys = ("input_layernorm", "post_attention_layernorm")
    shared, own = (Take(f"{{p}}layers.{{i}}.{key}.{leaf}", "d_model") for key in keys)
    return Choose(When("use_parallel_residual", False), shared, own)


STABLELM = Architecture(
    name="StableLmForCausalLM",
    model_type="stablelm",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once={**llama_like.ONCE, "ln_final.b": Take("{p}norm.bias", "d_model")},
    block={
        **llama_like.BLOCK,
        **llama_like.attention_biases(When("use_qkv_bias", False), output=False),
        "ln1.b": Take("{p}layers.{i}.input_layernorm.bias", "d_model"),
        "ln2.w": _second_norm("weight"),
        "ln2.b": _second_norm("bias"),
        "attn.q_norm.w": Stack("{p}layers.{i}.self_attn.q_layernorm.norms.{e}.weight", "head", "d_head"),
        "attn.k_norm.w": Stack("{p}layers.{i}.self_attn.k_layernorm.norms.{e}.weight", "kv_head", "d_head"),
    },
    dropped=llama_like.DROPPED,
    read_config=_read,
    ignored={
        "rotary_scaling_factor": "a leftover of training; transformers does not read it",
        "norm_eps": "the name that layer_norm_eps had; transformers does not read it",
    },
    required=llama_like.REQUIRED,
)
