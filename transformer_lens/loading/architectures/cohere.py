"""Cohere (Command R): one LayerNorm without bias for both branches, side by side; logits are scaled."""

from typing import Any

from transformer_lens.loading.architectures import llama_like
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Recipe, Take, When

_DEFAULTS = {
    "hidden_size": 8192,
    "num_attention_heads": 64,
    "intermediate_size": 22528,
    "num_hidden_layers": 40,
    "max_position_embeddings": 8192,
    "vocab_size": 256000,
}
# Upstream has a norm for each branch wherever branches stand side by side: both read the file's one.
BLOCK: dict[str, Recipe] = {
    **llama_like.BLOCK,
    "ln2.w": Take("{p}layers.{i}.input_layernorm.weight", "d_model"),
    **llama_like.attention_biases(When("attention_bias", False)),
}
REQUIRED = {name: value for name, value in llama_like.REQUIRED.items() if name != "rope_interleaved"}


def read_sizes(config: ConfigView, defaults: dict[str, int]) -> dict[str, Any]:
    """Returns the fields that both generations share."""
    config.flag("attention_bias", False)
    return {
        **llama_like.ungroup_if_equal(llama_like.read_shape(config, defaults)),
        "act_fn": config.activation("hidden_act", "silu"),
        "eps": config.number("layer_norm_eps", 1e-5, above=0),
        "normalization_type": "LN",
        "norm_bias": False,
        "parallel_attn_mlp": True,
        "logit_multiplier": config.number("logit_scale", 0.0625),
        "rotary_adjacent_pairs": True,
    }


def _read(config: ConfigView) -> dict[str, Any]:
    fields = read_sizes(config, _DEFAULTS)
    if not config.has("rope_theta") and not config.has("rope_parameters"):
        config.problems.append("rope_theta is not there, and releases of transformers differ in what it is then")
    uses_norms = config.flag("use_qk_norm", False)
    return {
        **fields,
        **({"use_qk_norm": True, "qk_norm_kind": "LN by head"} if uses_norms else {}),
        **config.rotary(fields["d_head"], fields["n_ctx"]),
    }


COHERE = Architecture(
    name="CohereForCausalLM",
    model_type="cohere",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block={
        **BLOCK,
        "attn.q_norm.w": Take("{p}layers.{i}.self_attn.q_norm.weight", "head d_head"),
        "attn.k_norm.w": Take("{p}layers.{i}.self_attn.k_norm.weight", "kv_head d_head"),
    },
    dropped=llama_like.DROPPED,
    read_config=_read,
    required={**REQUIRED, "mlp_bias": False},
    ties_by_default=True,
)
