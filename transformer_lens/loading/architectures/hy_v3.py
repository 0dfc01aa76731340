"""Hunyuan 3: Qwen 3 with sigmoid routers, a correction, and an expert for all tokens, behind a dense first layer."""

from typing import Any

from transformer_lens.loading.architectures import llama_like, mixtures
from transformer_lens.loading.architectures.qwen3_moe import MIXTURE
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Recipe, Take, When

_DEFAULTS = {
    "hidden_size": 4096,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 13312,
    "num_hidden_layers": 80,
    "max_position_embeddings": 131072,
    "vocab_size": 120832,
}


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.read_sizes(config, _DEFAULTS, eps=1e-5)
    config.flag("attention_bias", False)
    d_expert = config.size("moe_intermediate_size", 1536)
    return {
        **fields,
        "use_qk_norm": True,
        "num_experts": config.size(config.spelling("num_experts", "num_local_experts"), 192),
        "experts_per_token": config.size("num_experts_per_tok", 8),
        "d_expert": d_expert,
        "norm_topk_prob": True,
        "router_scores": "sigmoid",
        "router_correction": True,
        "router_is_precise": True,
        "router_epsilon": 1e-20,
        "router_multiplier": config.number("router_scaling_factor", 2.826),
        **mixtures.read_shared(config, "num_shared_experts", 1, d_expert),
        **mixtures.sparse_by_type(config, fields["n_layers"], 1),
        **config.rotary(fields["d_head"], fields["n_ctx"], 11_158_840.0),
    }


_MLP: dict[str, Recipe] = {
    **MIXTURE,
    "mlp.W_gate.weight": Take(
        ("{p}layers.{i}.mlp.router.gate.weight", "{p}layers.{i}.mlp.gate.weight"), "expert d_model"
    ),
    "mlp.e_score_correction_bias": Take(
        ("{p}layers.{i}.mlp.expert_bias", "{p}layers.{i}.mlp.e_score_correction_bias"), "expert"
    ),
    **mixtures.shared_expert("{p}layers.{i}.mlp.shared_mlp", "{p}layers.{i}.mlp.shared_experts"),
}

HY_V3 = Architecture(
    name="HYV3ForCausalLM",
    model_type="hy_v3",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block={
        **llama_like.BLOCK,
        **llama_like.QUERY_KEY_NORMS,
        **llama_like.attention_biases(When("attention_bias", False)),
        **_MLP,
    },
    dropped=llama_like.DROPPED,
    read_config=_read,
    ahead=mixtures.AHEAD,
    ignored={
        **mixtures.IGNORED,
        **mixtures.IGNORED_AHEAD,
        "enable_moe_fp32_combine": "a sum of two tensors is rounded once either way",
    },
    required={**llama_like.REQUIRED, "mlp_bias": False},
)
