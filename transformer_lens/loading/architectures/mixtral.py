"""Mixtral: Mistral whose MLPs are mixtures of experts."""

from typing import Any

from transformer_lens.loading.architectures import llama_like, mixtures
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Take

_DEFAULTS = {
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "max_position_embeddings": 131072,
    "vocab_size": 32000,
}


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.read_sizes(config, _DEFAULTS, eps=1e-5)
    size = config.window("sliding_window", None)
    return {
        **fields,
        "num_experts": config.size("num_local_experts", 8),
        "experts_per_token": config.size("num_experts_per_tok", 2),
        "norm_topk_prob": True,
        **llama_like.window(size, ["sliding_attention"] * fields["n_layers"]),
        **config.rotary(fields["d_head"], fields["n_ctx"], 1_000_000.0),
    }


MIXTRAL = Architecture(
    name="MixtralForCausalLM",
    model_type="mixtral",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block={
        **{name: recipe for name, recipe in llama_like.BLOCK.items() if not name.startswith("mlp.")},
        "mlp.W_gate.weight": Take(
            ("{p}layers.{i}.block_sparse_moe.gate.weight", "{p}layers.{i}.mlp.gate.weight"), "expert d_model"
        ),
        **mixtures.experts(
            "{p}layers.{i}.block_sparse_moe.experts.{e}",
            {"W_gate": "w1", "W_in": "w3", "W_out": "w2"},
            "{p}layers.{i}.mlp.experts",
        ),
    },
    dropped=llama_like.DROPPED,
    read_config=_read,
    ignored={
        "router_aux_loss_coef": "of the loss in training",
        "router_jitter_noise": "noise in training",
        "output_router_logits": "what transformers returns",
    },
    required={**llama_like.REQUIRED, **llama_like.UNBIASED},
)
