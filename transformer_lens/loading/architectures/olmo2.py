"""OLMo 2: norms of what each branch writes, and none of what it reads; norms over all heads of queries and of keys."""

from typing import Any

from transformer_lens.loading.architectures import llama_like
from transformer_lens.loading.architectures.olmo import ATTENTION_BIAS, DEFAULTS
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Recipe, Take

BLOCK: dict[str, Recipe] = {
    **llama_like.BLOCK,
    "ln1.w": Take("{p}layers.{i}.post_attention_layernorm.weight", "d_model"),
    "ln2.w": Take("{p}layers.{i}.post_feedforward_layernorm.weight", "d_model"),
    "attn.q_norm.w": Take("{p}layers.{i}.self_attn.q_norm.weight", "d_heads"),
    "attn.k_norm.w": Take("{p}layers.{i}.self_attn.k_norm.weight", "d_kv_heads"),
    **llama_like.attention_biases(ATTENTION_BIAS),
}


def read_sizes(config: ConfigView) -> dict[str, Any]:
    """Returns the fields that OLMo 2 and 3 share."""
    config.flag("attention_bias", False)
    return {
        **llama_like.read_sizes(config, DEFAULTS, eps=1e-5),
        "norm_placement": "output",
        "norm_casts_late": True,
        "use_qk_norm": True,
        "qk_norm_kind": "RMS over heads",
    }


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.ungroup_if_equal(read_sizes(config))
    return {**fields, **config.rotary(fields["d_head"], fields["n_ctx"])}


OLMO2 = Architecture(
    name="Olmo2ForCausalLM",
    model_type="olmo2",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block=BLOCK,
    dropped=llama_like.DROPPED,
    read_config=_read,
    required={**llama_like.REQUIRED, "mlp_bias": False},
)
