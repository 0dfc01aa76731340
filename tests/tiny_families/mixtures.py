"""Families whose MLPs are mixtures of experts: variants, and what follows of their configs."""

from __future__ import annotations

from typing import Any

from tests.tiny_families.variant import (
    EVERY_WINDOW,
    LLAMA,
    RMS,
    SIZES,
    SQUARE,
    UNGROUPED,
    WITH_HEADS,
    Family,
    Variant,
    rope,
)

_GRANITE = {
    **LLAMA, "embedding_multiplier": 3.0, "attention_multiplier": 0.2, "residual_multiplier": 0.4,
    "logits_scaling": 2.5,
}  # fmt: skip
_LOCAL = {"num_local_experts": 5, "num_experts_per_tok": 2}
_ROUTED = {
    **LLAMA, "num_hidden_layers": 3, "n_routed_experts": 5, "num_experts_per_tok": 2, "n_shared_experts": 1,
    "moe_intermediate_size": 20, "first_k_dense_replace": 1,
}  # fmt: skip
_OF_DENSE_LAYERS = ("intermediate_size", "first_k_dense_replace")
_IN_GROUPS = {"n_routed_experts": 8, "n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.5, "n_shared_experts": 2}
_ERNIE = {
    **LLAMA, "num_hidden_layers": 3, "moe_num_experts": 5, "moe_k": 2, "moe_intermediate_size": 20,
    "moe_num_shared_experts": 2, **rope("default", 500000.0),
}  # fmt: skip
_PHIMOE = {**LLAMA, **_LOCAL, "router_jitter_noise": 0.3}
_HUNYUAN = {**LLAMA, "num_experts": 5, "moe_topk": 2, "head_dim": 10}
_HY_V3 = {
    **LLAMA, "num_hidden_layers": 3, "head_dim": 10, "num_experts": 5, "num_experts_per_tok": 2,
    "moe_intermediate_size": 20,
}  # fmt: skip
_MELLUM = {
    **LLAMA, "num_hidden_layers": 3, "head_dim": 10, "num_experts": 5, "num_experts_per_tok": 2,
    "moe_intermediate_size": 20, "sliding_window": 5,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}  # fmt: skip


def _two_ropes(theta: float, local_theta: float, **numbers: Any) -> dict[str, Any]:
    full = {"rope_type": "default", "rope_theta": theta, **numbers}
    return {"rope_parameters": {"full_attention": full, "sliding_attention": {**_PLAIN, "rope_theta": local_theta}}}


_PLAIN = {"rope_type": "default"}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "attention_factor": 1.2}
_SHORT_FACTORS = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.5, 2.0, 2.5, 3.0]}
_ONE_FACTOR = {"short_mscale": 1.25, "long_mscale": 1.25}

VARIANTS: dict[str, Variant] = {
    "granitemoe": Variant("GraniteMoeConfig", {**_GRANITE, **_LOCAL}),
    "granitemoe-square": Variant("GraniteMoeConfig", {
        **SQUARE, **_LOCAL, "attention_multiplier": 0.2, "attention_bias": True, "tie_word_embeddings": True,
    }),
    "granitemoe-shared": Variant("GraniteMoeSharedConfig", {**_GRANITE, **_LOCAL, "shared_intermediate_size": 28}),
    "granite-swa": Variant("GraniteSWAConfig", {**_GRANITE, "num_hidden_layers": 5, "sliding_window": 5}),
    "granite-swa-bases": Variant("GraniteSWAConfig", {
        **_GRANITE, "num_hidden_layers": 4, "sliding_window": 5, "layer_rope_theta": [10000.0, 500.0, 0, 500.0],
        "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False,
    }),
    "glm4-moe": Variant("Glm4MoeConfig", {**_ROUTED, **rope("default", partial_rotary_factor=0.5)}),
    "glm4-moe-groups": Variant("Glm4MoeConfig", {
        **_ROUTED, **_IN_GROUPS, "head_dim": 10, "use_qk_norm": True, "attention_bias": True, "norm_topk_prob": False,
        **rope("default", partial_rotary_factor=0.4),
    }, right_since="5.0"),
    "glm4-moe-square": Variant("Glm4MoeConfig", {
        **_ROUTED, "moe_intermediate_size": 48, "intermediate_size": 48, "vocab_size": 48,
        **rope("default", partial_rotary_factor=0.5),
    }),
    "dots1": Variant("Dots1Config", {**_ROUTED, "norm_topk_prob": True, "routed_scaling_factor": 1.5}),
    "dots1-windows": Variant("Dots1Config", {
        **_ROUTED, **_IN_GROUPS, "sliding_window": 5, "max_window_layers": 1, "attention_bias": True,
        "first_k_dense_replace": 0,
    }, right_since="5.0"),
    "solar-open": Variant("SolarOpenConfig", {
        **{name: value for name, value in _ROUTED.items() if name not in _OF_DENSE_LAYERS}, **_IN_GROUPS,
        "head_dim": 10, "attention_bias": True,
    }),
    "solar-open-unbiased": Variant("SolarOpenConfig", {
        **{name: value for name, value in _ROUTED.items() if name not in _OF_DENSE_LAYERS}, "head_dim": 10,
    }),
    "ernie4-5-moe": Variant("Ernie4_5_MoeConfig", _ERNIE),
    "ernie4-5-moe-dense-between": Variant("Ernie4_5_MoeConfig", {
        **_ERNIE, "num_hidden_layers": 5, "moe_layer_interval": 2, "moe_layer_start_index": 2, "moe_layer_end_index": 3,
        "moe_num_shared_experts": 0, "tie_word_embeddings": False,
    }),
    "flex-olmo": Variant("FlexOlmoConfig", {
        **LLAMA, "num_experts": 5, "num_experts_per_tok": 2, "pad_token_id": 0, **rope("default", 500000.0),
    }),
    "flex-olmo-bias": Variant("FlexOlmoConfig", {
        **LLAMA, "num_experts": 4, "num_experts_per_tok": 3, "pad_token_id": 0, "attention_bias": True,
        "norm_topk_prob": True,
    }),
    "phimoe": Variant("PhimoeConfig", {
        **_PHIMOE, "attention_bias": True, "lm_head_bias": True, **rope("default", 1e6),
    }),
    "phimoe-longrope": Variant("PhimoeConfig", {
        **_PHIMOE, "sliding_window": 5,
        **rope("longrope", 1e6, original_max_position_embeddings=48, **_SHORT_FACTORS, **_ONE_FACTOR),
    }, right_since="5.0"),
    "minimax-m2": Variant("MiniMaxM2Config", {
        **LLAMA, **_LOCAL, "head_dim": 10, **rope("default", 5e6, partial_rotary_factor=0.4),
    }),
    "hunyuan-moe": Variant("HunYuanMoEV1Config", _HUNYUAN),
    "hunyuan-moe-alpha": Variant("HunYuanMoEV1Config", {
        **_HUNYUAN, "attention_bias": True, "tie_word_embeddings": True, **rope("dynamic", alpha=50.0, factor=1.0),
    }, right_since="5.0"),
    "hy-v3": Variant("HYV3Config", _HY_V3),
    "hy-v3-bias": Variant("HYV3Config", {
        **_HY_V3, "attention_bias": True, "num_shared_experts": 2, "mlp_layer_types": ["sparse", "dense", "sparse"],
    }),
    "mellum": Variant("MellumConfig", {**_MELLUM, **_two_ropes(500000.0, 300.0)}),
    "mellum-yarn": Variant("MellumConfig", {
        **_MELLUM, **_two_ropes(500000.0, 10000.0, **_YARN), "mlp_layer_types": ["sparse", "dense", "sparse"],
        "attention_bias": True, "norm_topk_prob": False,
    }),
}  # fmt: skip

_LEAST_ROUTED = {
    **SIZES, "n_routed_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 20,
}  # fmt: skip
_QK_NORM = {**RMS, "use_qk_norm": True}
_GROUPS = (
    ({"n_routed_experts": 8, "n_group": 4, "topk_group": 2}, {"router_groups": 4, "router_groups_chosen": 2}),
    ({"n_shared_experts": 3}, {"d_shared_expert": 60}),
    ({"n_shared_experts": 0}, {"d_shared_expert": None}),
    ({"routed_scaling_factor": 2.5}, {"router_multiplier": 2.5}),
)
_BAD_GROUPS = (
    ({"n_group": 4}, "CorruptCheckpointError", "not a multiple of n_group"),
    ({"n_routed_experts": 8, "n_group": 4, "topk_group": 5}, "CorruptCheckpointError", "topk_group = 5"),
    ({"n_routed_experts": 8, "n_group": 4, "num_experts_per_tok": 3}, "CorruptCheckpointError", "3 of 8 experts"),
)
_BY_TYPE = (
    ({"mlp_layer_types": ["sparse"]}, "CorruptCheckpointError", "not a list of 4"),
    ({"mlp_layer_types": ["sparse", "dense", "sparse", "other"]}, "UnhandledConfigError", "'other' is neither"),
)

FAMILIES: dict[str, Family] = {
    "granitemoe": Family(
        "GraniteMoeConfig", {**SIZES, **_LOCAL}, {**RMS, "norm_topk_prob": True},
        means=(*UNGROUPED, ({"attention_multiplier": 0.5}, {"attn_scale": 2.0})),
    ),
    "granitemoeshared": Family(
        "GraniteMoeSharedConfig", {**SIZES, **_LOCAL}, RMS,
        means=(
            ({}, {"d_shared_expert": None}),
            ({"shared_intermediate_size": 28}, {"d_shared_expert": 28}),
        ),
        refuses=(({"shared_intermediate_size": -1}, "CorruptCheckpointError", "shared_intermediate_size"),),
    ),
    "granite_swa": Family(
        "GraniteSWAConfig", SIZES, {**RMS, "use_attention_sinks": True},
        means=(
            ({"sliding_window": 5}, {"windows": [None, 5, 5, 5]}),
            ({"layer_rope_theta": [7.0, 5.0, 5.0, 0]},
             {"rotary_base": 7.0, "rotary_base_local": 5.0, "rotary_layers": [True, True, True, False]}),
            ({"layer_rope_theta": [0, 5.0, 5.0, 5.0]},
             {"rotary_base": 5.0, "rotary_base_local": None, "rotary_layers": [False, True, True, True]}),
        ),
        refuses=(
            ({"layer_rope_theta": [7.0, 5.0, 4.0, 0]}, "UnhandledConfigError", "several bases"),
            ({"layer_rope_theta": [7.0]}, "CorruptCheckpointError", "not a list of 4"),
            ({"layer_rope_theta": [7.0, 5.0, 5.0, 5.0], "rope_scaling": {"type": "linear", "factor": 2.0}},
             "UnhandledConfigError", "both of them scaled"),
        ),
    ),
    "glm4_moe": Family(
        "Glm4MoeConfig", _LEAST_ROUTED, {**RMS, "router_scores": "sigmoid", "router_correction": True,
                                         "default_prepend_bos": False},
        # Of the class's default, 42, no half rotates in pairs.
        beside={"head_dim": 8},
        means=(
            *_GROUPS,
            ({}, {"rotary_dim": 4, "expert_layers": [False, True, True, True]}),
            ({"first_k_dense_replace": 3}, {"expert_layers": [False, False, False, True]}),
        ),
        refuses=_BAD_GROUPS,
        published={
            "4.5-Air": {"attention_bias": True, "attention_dropout": 0.0, "head_dim": 128, "hidden_act": "silu",
                        "partial_rotary_factor": 0.5, "norm_topk_prob": True, "n_group": 1, "topk_group": 1,
                        "first_k_dense_replace": 1, "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 1000000,
                        "num_nextn_predict_layers": 1, "tie_word_embeddings": False, "use_qk_norm": False},
        },
    ),
    "dots1": Family(
        "Dots1Config", _LEAST_ROUTED, {**_QK_NORM, "router_scores": "sigmoid", "default_prepend_bos": False},
        # The class has no defaults of them.
        beside={"n_routed_experts": 5, "num_experts_per_tok": 2, "n_shared_experts": 1},
        means=(
            *_GROUPS,
            ({}, {"windows": [None] * 4, "expert_layers": [True] * 4}),
            ({"max_window_layers": 2, "sliding_window": 5}, {"windows": [None, None, 5, 5]}),
            ({"max_window_layers": 2, "sliding_window": None}, {"windows": [None] * 4}),
        ),
        refuses=(*_BAD_GROUPS, ({"n_routed_experts": ...}, "CorruptCheckpointError", "n_routed_experts")),
    ),
    "solar_open": Family(
        "SolarOpenConfig",
        {name: size for name, size in {**_LEAST_ROUTED, "head_dim": 10}.items() if name != "intermediate_size"},
        {**RMS, "router_scores": "sigmoid"}, means=_GROUPS, refuses=_BAD_GROUPS,
    ),
    "ernie4_5_moe": Family(
        "Ernie4_5_MoeConfig", {**SIZES, "moe_num_experts": 5, "moe_k": 2, "moe_intermediate_size": 20},
        {**RMS, "rotary_adjacent_pairs": True, "router_correction": True, "router_scores": "softmax"},
        means=(
            ({}, {"d_shared_expert": 40, "expert_layers": [False, True, True, True], "rotary_base": 500000}),
            ({"moe_layer_end_index": 2, "moe_layer_interval": 2}, {"expert_layers": [False, True, False, False]}),
        ),
        refuses=(({"moe_layer_start_index": -1}, "CorruptCheckpointError", "moe_layer_start_index"),),
    ),
    "flex_olmo": Family(
        "FlexOlmoConfig", {**SIZES, "num_experts": 5, "num_experts_per_tok": 2}, {**RMS, "norm_placement": "output"},
        means=UNGROUPED,
    ),
    "phimoe": Family(
        "PhimoeConfig", {**SIZES, "num_local_experts": 5},
        {**RMS, "normalization_type": "LN", "router_scores": "sparsemixer", "experts_per_token": 2},
        means=(*EVERY_WINDOW, ({"router_jitter_noise": 0.2}, {"router_jitter": 0.2})),
        refuses=(
            ({"rope_scaling": {"type": "longrope", **_SHORT_FACTORS, "short_mscale": 1.0, "long_mscale": 2.0}},
             "UnhandledConfigError", "not one factor"),
        ),
        published={
            "3.5": {"attention_bias": True, "lm_head_bias": True, "input_jitter_noise": 0.01, "hidden_dropout": 0.0,
                    "rope_scaling": {"type": "longrope", **_SHORT_FACTORS, "original_max_position_embeddings": 16,
                                     "short_mscale": 1.243163121016122, "long_mscale": 1.243163121016122},
                    "rope_theta": 10000.0, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.0},
        },
    ),
    "minimax_m2": Family(
        "MiniMaxM2Config", {**WITH_HEADS, **_LOCAL}, {**_QK_NORM, "router_correction": True},
        means=(
            ({}, {"rotary_dim": 10, "rotary_base": 5000000}),
            ({"rotary_dim": 4}, {"rotary_dim": 4}),
        ),
        refuses=(({"attn_type_list": [1, 1, 0, 1]}, "UnhandledConfigError", "attn_type_list"),),
    ),
    "hunyuan_v1_moe": Family(
        "HunYuanMoEV1Config", {**SIZES, "num_experts": 5, "moe_topk": 2}, {**_QK_NORM, "qk_norm_after_rotary": True},
        means=(
            ({}, {"d_shared_expert": 80}),
            ({"num_experts": [5] * 4, "moe_topk": [3] * 4, "moe_intermediate_size": [80] * 4},
             {"num_experts": 5, "experts_per_token": 3}),
            ({"head_dim": 4, "rope_scaling": {"type": "dynamic", "alpha": 8.0, "factor": 1.0}},
             {"rotary_base": 640000}),
        ),
        refuses=(
            ({"moe_topk": [2, 2, 3, 2]}, "UnhandledConfigError", "moe_topk"),
            ({"moe_intermediate_size": [20] * 4}, "UnhandledConfigError", "80 in all layers"),
            ({"num_shared_expert": [1]}, "CorruptCheckpointError", "not a list of 4"),
            ({"rope_scaling": {"type": "dynamic", "alpha": 8.0, "beta": 1}}, "UnhandledConfigError", "beside alpha"),
        ),
    ),
    "hy_v3": Family(
        "HYV3Config",
        {**WITH_HEADS, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 20},
        {**_QK_NORM, "router_scores": "sigmoid", "router_correction": True},
        means=(({}, {"d_shared_expert": 20, "expert_layers": [False, True, True, True]}),),
        refuses=_BY_TYPE,
    ),
    "mellum": Family(
        "MellumConfig",
        {**WITH_HEADS, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 20}, _QK_NORM,
        means=(
            ({"sliding_window": 5}, {"windows": [None] * 4}),
            ({"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"] * 2},
             {"windows": [5, None, 5, None]}),
            ({}, {"rotary_base": 500000, "rotary_base_local": 10000, "expert_layers": [True] * 4}),
        ),
        refuses=_BY_TYPE,
    ),
}  # fmt: skip
