"""What Gemma's three generations share: norms of weight ``1 + w``, a scaled embedding, wide heads."""

import math
from typing import Any

from transformer_lens.loading.architectures import llama_like
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Recipe, Take, When

SANDWICH: dict[str, Recipe] = {
    **llama_like.BLOCK,
    "ln1_post.w": Take("{p}layers.{i}.post_attention_layernorm.weight", "d_model"),
    "ln2.w": Take("{p}layers.{i}.pre_feedforward_layernorm.weight", "d_model"),
    "ln2_post.w": Take("{p}layers.{i}.post_feedforward_layernorm.weight", "d_model"),
}
ATTENTION_BIAS = When("attention_bias", False)


def read_sizes(config: ConfigView, defaults: dict[str, int], activation: str) -> dict[str, Any]:
    """Returns the fields that all generations have.

    Args:
        config: Where to read.
        defaults: Sizes where nothing says them.
        activation: Name of the field that names the activation.
    """
    fields = llama_like.read_shape(config, defaults)
    config.flag("attention_bias", False)
    return {
        **fields,
        "act_fn": tanh_gelu(config, activation),
        "eps": config.number("rms_norm_eps", 1e-6, above=0),
        "norm_weight_offset": 1.0,
        "norm_casts_late": True,
        "embedding_multiplier": math.sqrt(fields["d_model"]),
    }


def tanh_gelu(config: ConfigView, name: str) -> str:
    """Returns the activation; "gelu" is what early files call the tanh formula that the models were trained with."""
    found = config.activation(name, "gelu_pytorch_tanh")
    return "gelu_pytorch_tanh" if found == "gelu" else found


def read_scale(config: ConfigView) -> dict[str, Any]:
    """Returns the divisor of the scores, which is not that of the heads' width."""
    return {"attn_scale": math.sqrt(config.number("query_pre_attn_scalar", 256, above=0))}


def read_caps(config: ConfigView, attention: float | None, final: float | None) -> dict[str, Any]:
    """Returns the caps of scores and logits; null means none, absent the generation's default."""
    caps = {
        "attn_scores_soft_cap": config.number_or_none("attn_logit_softcapping", attention, above=0),
        "output_logits_soft_cap": config.number_or_none("final_logit_softcapping", final, above=0),
    }
    return {name: cap for name, cap in caps.items() if cap is not None}
