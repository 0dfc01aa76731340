"""A small random model in float64 of every kind of block that a config can ask for."""

from tests.unit.small_transformers import LLAMA, make_model

ROTARY = {"positional_embedding_type": "rotary", "rotary_dim": 8}
GATED = {"gated_mlp": True, "act_fn": "silu"}
RMS = {"normalization_type": "RMS"}
ALIBI = {"positional_embedding_type": "alibi"}
WINDOWS = {"use_local_attn": True, "window_size": 3, "attn_types": ["local", "global", "local"]}
MIXTURE = {**LLAMA, "num_experts": 4, "experts_per_token": 2, "d_expert": 9}
POST = {"norm_placement": "post", "has_final_norm": False}
NORMS = {f"qk {kind}": {"use_qk_norm": True, "qk_norm_kind": kind}
         for kind in ("RMS", "RMS over heads", "LN", "LN by head")}  # fmt: skip

KINDS = {
    "pre": {},
    "pre, RMS": RMS,
    "parallel": {"parallel_attn_mlp": True},
    "parallel, RMS, rotary": {**RMS, **ROTARY, "parallel_attn_mlp": True},
    "sandwich": {"use_normalization_before_and_after": True},
    "sandwich, RMS, offset": {
        **LLAMA, "use_normalization_before_and_after": True, "norm_weight_offset": 1.0, "norm_casts_late": True,
    },
    "output": {"norm_placement": "output"},
    "output, RMS": {**LLAMA, "norm_placement": "output"},
    "post": POST,
    "post, with a final norm": {"norm_placement": "post"},
    "post, RMS": {**POST, **RMS},
    "post, without an MLP": {**POST, "attn_only": True, "act_fn": None, "d_mlp": None},
    "post, multiplied": {**POST, "residual_multiplier": 0.4},
    "a norm behind the embedding": {"post_embedding_ln": True},
    "a norm behind the embedding, RMS after it": {"post_embedding_ln": True, **RMS},
    "ALiBi": ALIBI,
    "ALiBi, rounded": {**ALIBI, "alibi_in_bfloat16": True},
    "ALiBi, grouped": {**ALIBI, "n_key_value_heads": 3},
    "sinks": {"use_attention_sinks": True},
    "sinks, windows": {"use_attention_sinks": True, **WINDOWS, **LLAMA, "n_key_value_heads": 3},
    "clip": {"clip_qkv": 0.7},
    "clip, rotary": {"clip_qkv": 0.7, **ROTARY},
    "softcaps": {"attn_scores_soft_cap": 3.0, "output_logits_soft_cap": 2.0},
    **NORMS,
    **{f"{name}, after rotary": {**ROTARY, **norm, "qk_norm_after_rotary": True} for name, norm in NORMS.items()},
    **{f"{name}, grouped, before rotary": {**ROTARY, **norm, "n_key_value_heads": 3} for name, norm in NORMS.items()},
    "rotary in some layers": {**ROTARY, "rotary_layers": [True, False, True]},
    "rotary, two bases": {**ROTARY, **WINDOWS, "rotary_base_local": 77.0},
    "rotary, adjacent, some dimensions": {**ROTARY, "rotary_dim": 4, "rotary_adjacent_pairs": True},
    "rotary, scaled": {**ROTARY, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "multipliers": {
        **LLAMA, "embedding_multiplier": 3.0, "residual_multiplier": 0.4, "logit_multiplier": 0.3, "attn_scale": 5.0,
    },
    "multipliers, LN": {"embedding_multiplier": 3.0, "residual_multiplier": 0.4, "logit_multiplier": 0.3},
    "scores by layer": {"scale_attn_by_inverse_layer_idx": True, "use_attn_scale": False},
    "gated behind LN": GATED,
    "gated behind LN, biased": {**GATED, "gated_mlp_bias": True},
    "gated behind LN without bias": {**GATED, "norm_bias": False},
    "norms without weight": {"norm_weight": False},
    "norms without weight, RMS": {**LLAMA, "norm_weight": False},
    "norms without bias": {"norm_bias": False},
    "no final norm": {"has_final_norm": False},
    "final RMS": {"final_rms": True},
    "SoLU": {"act_fn": "solu_ln"},
    "SoLU, sandwich": {"act_fn": "solu_ln", "use_normalization_before_and_after": True},
    "attention only": {"attn_only": True, "act_fn": None, "d_mlp": None},
    "grouped": {**LLAMA, "n_key_value_heads": 3},
    "multi-query": {"n_key_value_heads": 1},
    "windows": WINDOWS,
    "shortformer": {"positional_embedding_type": "shortformer"},
    "no positions": {"positional_embedding_type": "none"},
    "no norms": {"normalization_type": None},
    "folded": {"normalization_type": "LNPre"},
    "experts": MIXTURE,
    "experts, not renormalised": {**MIXTURE, "norm_topk_prob": True},
    "experts, clamped and biased": {**MIXTURE, "router_bias": True, "expert_bias": True, "expert_clamp": 1.0},
    "experts, sigmoid, corrected, in groups": {
        **MIXTURE, "router_scores": "sigmoid", "router_correction": True, "router_groups": 2, "router_multiplier": 2.5,
        "norm_topk_prob": True, "router_epsilon": 0.1, "router_is_precise": True,
    },
    "experts, corrected, floor": {**MIXTURE, "router_correction": True, "norm_topk_prob": True, "router_floor": 0.7},
    "experts, sparsemixer": {**MIXTURE, "router_scores": "sparsemixer", "router_jitter": 0.4},
    "experts, one shared": {**MIXTURE, "d_shared_expert": 11},
    "experts, one shared and gated": {**MIXTURE, "d_shared_expert": 11, "gates_shared_expert": True},
    "experts, dense between": {**MIXTURE, "expert_layers": [True, False, True]},
    "experts behind LN": {**GATED, "num_experts": 4, "experts_per_token": 2, "d_expert": 9},
    "experts behind LN, biased": {
        **GATED, "num_experts": 4, "experts_per_token": 2, "d_expert": 9, "router_bias": True, "expert_bias": True,
    },
    "experts, post": {**GATED, **POST, "num_experts": 4, "experts_per_token": 2, "d_expert": 9},
}  # fmt: skip


def make(kind):
    """The model of a kind; without norms numbers grow from layer to layer, so its weights are smaller."""
    import torch

    std = 0.2 if kind in ("no norms", "no final norm") else 0.4
    return make_model(dtype=torch.float64, std=std, **KINDS[kind])
