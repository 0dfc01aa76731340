"""Sizes of named axes, and the axes of every parameter."""

from __future__ import annotations

from collections.abc import Mapping

from transformer_lens.anatomy.describe import layer_of, model_of
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig

MATRICES: Mapping[str, str] = {
    "W_Q": "head d_model d_head", "W_K": "kv_head d_model d_head", "W_V": "kv_head d_model d_head",
    "W_O": "head d_head d_model", "W_in": "d_model d_mlp", "W_gate": "d_model d_mlp", "W_out": "d_mlp d_model",
    "W_U": "d_model d_vocab_out",
}  # fmt: skip
"""Axes of the matrices that an ``nn.Linear`` would hold, by the last part of their names."""


def axis_sizes(cfg: HookedTransformerConfig) -> dict[str, int]:
    """Returns the size of every axis that layouts may name."""
    return {
        "d_model": cfg.d_model,
        "d_head": cfg.d_head,
        "head": cfg.n_heads,
        "kv_head": cfg.n_kv_heads,
        "d_heads": cfg.n_heads * cfg.d_head,
        "d_kv_heads": cfg.n_kv_heads * cfg.d_head,
        "d_mlp": cfg.d_mlp or 0,
        "d_vocab": cfg.d_vocab,
        "d_vocab_out": cfg.d_vocab_out,
        "n_ctx": cfg.n_ctx,
        "d_expert": cfg.d_mlp if cfg.d_expert is None else cfg.d_expert,
        "d_shared": cfg.d_shared_expert or 0,
        "expert": cfg.num_experts or 0,
        "one": 1,
        "qkv": 3,
        "gate_up": 2,
    }


def schema(cfg: HookedTransformerConfig) -> dict[str, str]:
    """Returns the axes of every parameter of a model, space separated, in the order of registration."""
    return model_of(cfg).parameters()


def block_schema(cfg: HookedTransformerConfig, index: int = 0) -> dict[str, str]:
    """Returns the axes of the parameters of one block, by names inside the block."""
    return layer_of(cfg, index).parameters()
