"""OLMoE: norms over all heads of queries and of keys, clipping, mixtures of experts."""

from typing import Any

from transformer_lens.loading.architectures import llama_like
from transformer_lens.loading.architectures.olmo import ATTENTION_BIAS
from transformer_lens.loading.architectures.qwen3_moe import MIXTURE
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Take

_DEFAULTS = {
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "intermediate_size": 2048,
    "num_hidden_layers": 16,
    "max_position_embeddings": 4096,
    "vocab_size": 50304,
}


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.read_sizes(config, _DEFAULTS, eps=1e-5)
    config.flag("attention_bias", False)
    return {
        **fields,
        "use_qk_norm": True,
        "qk_norm_kind": "RMS over heads",
        "clip_qkv": config.number_or_none("clip_qkv", None, above=0),
        "num_experts": config.size("num_experts", 64),
        "experts_per_token": config.size("num_experts_per_tok", 8),
        "norm_topk_prob": config.flag("norm_topk_prob", False),
        **config.rotary(fields["d_head"], fields["n_ctx"]),
    }


OLMOE = Architecture(
    name="OlmoeForCausalLM",
    model_type="olmoe",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block={
        **{name: recipe for name, recipe in llama_like.BLOCK.items() if not name.startswith("mlp.")},
        "attn.q_norm.w": Take("{p}layers.{i}.self_attn.q_norm.weight", "d_heads"),
        "attn.k_norm.w": Take("{p}layers.{i}.self_attn.k_norm.weight", "d_kv_heads"),
        **llama_like.attention_biases(ATTENTION_BIAS),
        **MIXTURE,
    },
    dropped=llama_like.DROPPED,
    read_config=_read,
    ignored={
        "router_aux_loss_coef": "of the loss in training",
        "output_router_logits": "what transformers returns",
    },
    required={**llama_like.REQUIRED, "mlp_bias": False},
)
