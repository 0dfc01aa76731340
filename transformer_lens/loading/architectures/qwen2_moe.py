"""Qwen 1.5's and 2's mixtures: Qwen 2 with experts, one of which sees every token."""

from typing import Any

from transformer_lens.loading.architectures import llama_like, mixtures
from transformer_lens.loading.architectures.qwen3_moe import MIXTURE, read_mixture
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Take, When

_DEFAULTS = {
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "intermediate_size": 5632,
    "num_hidden_layers": 24,
    "max_position_embeddings": 32768,
    "vocab_size": 151936,
}


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.read_sizes(config, _DEFAULTS)
    config.flag("qkv_bias", True)
    return {
        **fields,
        "default_prepend_bos": False,
        **read_mixture(config, fields["n_layers"], 60, 4, 1408),
        "d_shared_expert": config.size("shared_expert_intermediate_size", 5632),
        "gates_shared_expert": True,
        **llama_like.qwen_windows(config, fields["n_layers"]),
        **config.rotary(fields["d_head"], fields["n_ctx"]),
    }


QWEN2_MOE = Architecture(
    name="Qwen2MoeForCausalLM",
    model_type="qwen2_moe",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block={
        **llama_like.BLOCK,
        **llama_like.attention_biases(When("qkv_bias", True), output=False),
        **MIXTURE,
        **mixtures.shared_expert("{p}layers.{i}.mlp.shared_expert"),
        "mlp.shared_expert_gate.weight": Take("{p}layers.{i}.mlp.shared_expert_gate.weight", "one d_model"),
    },
    dropped=llama_like.DROPPED,
    read_config=_read,
    ignored={
        "router_aux_loss_coef": "of the loss in training",
        "output_router_logits": "what transformers returns",
    },
    required={**llama_like.REQUIRED, **llama_like.UNBIASED},
)
