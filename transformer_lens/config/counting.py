"""How many weights a model of a config has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig


def count_weights(cfg: HookedTransformerConfig) -> int:
    """Returns the number of weights of attention and MLPs, without biases and embeddings."""
    n_kv_heads = cfg.n_heads if cfg.n_key_value_heads is None else cfg.n_key_value_heads
    per_layer = 2 * cfg.d_model * cfg.d_head * (cfg.n_heads + n_kv_heads)
    if cfg.attn_only or cfg.d_mlp is None:
        return cfg.n_layers * per_layer
    dense = (2 + cfg.gated_mlp) * cfg.d_model * cfg.d_mlp
    if cfg.num_experts is None:
        return cfg.n_layers * (per_layer + dense)
    sparse = cfg.n_layers if cfg.expert_layers is None else sum(cfg.expert_layers)
    expert = (3 * (cfg.d_expert or cfg.d_mlp) + 1) * cfg.d_model
    shared = (3 * (cfg.d_shared_expert or 0) + cfg.gates_shared_expert) * cfg.d_model
    mixtures = sparse * (cfg.num_experts * expert + shared)
    return cfg.n_layers * per_layer + mixtures + (cfg.n_layers - sparse) * dense
