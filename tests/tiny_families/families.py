"""What follows of the configs of the first families."""

from __future__ import annotations

from tests.tiny_families.variant import (
    DOUBLED,
    EVERY_WINDOW,
    EXPERTS,
    GROUPED,
    LN,
    QWEN_WINDOWS,
    RMS,
    SIZES,
    SUMMARY,
    UNGROUPED,
    WITH_HEADS,
    Family,
    longrope,
)

FAMILIES: dict[str, Family] = {
    "bloom": Family(
        "BloomConfig",
        {"hidden_size": 48, "n_head": 6, "n_layer": 4, "vocab_size": 113},
        {**LN, "default_prepend_bos": False, "positional_embedding_type": "alibi", "post_embedding_ln": True},
        means=(
            ({"n_head": ..., "num_attention_heads": 4}, {"n_heads": 4, "d_head": 12}),
            ({"seq_length": 99}, {"n_ctx": 99}),
        ),
        refuses=(({"num_attention_heads": 3}, "UnhandledConfigError", "which"),),
        published={
            "560m": {"apply_residual_connection_post_layernorm": False, "attention_softmax_in_fp32": True,
                     "bias_dropout_fusion": True, "masked_softmax_fusion": True, "offset_alibi": 100,
                     "pretraining_tp": 1, "skip_bias_add": True, "skip_bias_add_qkv": False, "slow_but_exact": False,
                     "seq_length": 2048, "unk_token_id": 0, "use_cache": True},
        },
    ),
    "cohere": Family(
        "CohereConfig", SIZES, {**LN, "gated_mlp": True, "parallel_attn_mlp": True, "norm_bias": False},
        beside={"rope_theta": 10000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
        means=(*UNGROUPED, ({"use_qk_norm": True}, {"use_qk_norm": True, "qk_norm_kind": "LN by head"})),
        refuses=(({"rope_theta": ..., "rope_parameters": ...}, "UnhandledConfigError", "rope_theta"),),
    ),
    "cohere2": Family(
        "Cohere2Config", WITH_HEADS, {**LN, "gated_mlp": True, "parallel_attn_mlp": True, "norm_bias": False},
        means=(
            ({"sliding_window": 5}, {"windows": [5, 5, 5, None], "rotary_layers": [True, True, True, False]}),
            ({"sliding_window": 5, "sliding_window_pattern": 2}, {"windows": [5, None, 5, None]}),
        ),
    ),
    "gemma": Family(
        "GemmaConfig", WITH_HEADS, {**RMS, "norm_weight_offset": 1.0},
        means=(
            *GROUPED,
            ({"hidden_act": "gelu"}, {"act_fn": "gelu_pytorch_tanh"}),
            ({"hidden_act": "gelu", "hidden_activation": "relu"}, {"act_fn": "relu"}),
            ({"hidden_act": "silu"}, {"act_fn": "silu"}),
        ),
        by_hand="llama_like",
    ),
    "gemma2": Family(
        "Gemma2Config", WITH_HEADS, {**RMS, "norm_weight_offset": 1.0, "use_normalization_before_and_after": True},
        means=(
            *GROUPED,
            ({"sliding_window": 5}, {"windows": [5, None, 5, None]}),
            ({"attn_logit_softcapping": None}, {"output_logits_soft_cap": 30.0}),
            ({"final_logit_softcapping": 7.0}, {"attn_scores_soft_cap": 50.0, "output_logits_soft_cap": 7.0}),
        ),
    ),
    "gemma3": Family(
        "Gemma3Config", WITH_HEADS, {**RMS, "norm_weight_offset": 1.0, "use_normalization_before_and_after": True},
        means=(({"sliding_window": 5, "sliding_window_pattern": 2}, {"windows": [5, None, 5, None]}),),
    ),
    "gemma3_text": Family(
        "Gemma3TextConfig", WITH_HEADS,
        {**RMS, "norm_weight_offset": 1.0, "use_normalization_before_and_after": True},
        means=(
            ({"sliding_window": 5, "sliding_window_pattern": 2}, {"windows": [5, None, 5, None]}),
            ({"rope_theta": 7e5, "rope_local_base_freq": 900.0}, {"rotary_base": 700000, "rotary_base_local": 900}),
        ),
    ),
    "gpt2": Family(
        "GPT2Config",
        {"n_embd": 48, "n_head": 6, "n_layer": 4, "vocab_size": 113, "n_positions": 64},
        {**LN, "positional_embedding_type": "standard"},
        means=(
            ({"n_inner": None}, {"d_mlp": 192}),
            ({"n_inner": 80}, {"d_mlp": 80}),
            ({"scale_attn_weights": False}, {"use_attn_scale": False}),
            ({"scale_attn_by_inverse_layer_idx": True}, {"scale_attn_by_inverse_layer_idx": True}),
            ({"n_ctx": 12, "reorder_and_upcast_attn": True}, {"n_ctx": 64}),
        ),
        refuses=(({"n_head": 5}, "CorruptCheckpointError", "not a multiple of n_head"),),
        published={
            "medium": {"activation_function": "gelu_new", "attn_pdrop": 0.1, "bos_token_id": 50256, "embd_pdrop": 0.1,
                       "eos_token_id": 50256, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "n_ctx": 1024,
                       "n_special": 0, "predict_special_tokens": True, "output_past": True, "resid_pdrop": 0.1,
                       **SUMMARY, "task_specific_params": {"text-generation": {"max_length": 50}}},
            "distilled": {"_num_labels": 1, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}},
        },
        by_hand="gpt2",
    ),
    "gpt_neo": Family(
        "GPTNeoConfig",
        {"hidden_size": 48, "num_heads": 6, "num_layers": 4, "vocab_size": 113, "max_position_embeddings": 64},
        {**LN, "positional_embedding_type": "standard"},
        means=(
            ({"window_size": 5}, {"windows": [None, 5, None, 5]}),
            ({"window_size": 5, "attention_types": [[["local"], 3], [["global"], 1]]}, {"windows": [5, 5, 5, None]}),
        ),
        refuses=(
            ({"attention_types": [[["global"], 3]]}, "CorruptCheckpointError", "for each of 4 layers"),
            ({"attention_types": [[["sparse"], 4]]}, "CorruptCheckpointError", "global or local"),
            ({"attention_layers": ["local"] * 4}, "UnhandledConfigError", "which one"),
        ),
    ),
    "gpt_neox": Family(
        "GPTNeoXConfig",
        {name: value for name, value in SIZES.items() if name != "num_key_value_heads"},
        {**LN, "parallel_attn_mlp": True},
        means=(
            ({"rotary_pct": 0.5, "rotary_emb_base": 20000}, {"rotary_dim": 4, "rotary_base": 20000}),
            ({"partial_rotary_factor": 0.5, "rope_theta": 20000}, {"rotary_dim": 4, "rotary_base": 20000}),
            ({"rope_parameters": {"partial_rotary_factor": 0.5, "rope_theta": 20000}},
             {"rotary_dim": 4, "rotary_base": 20000}),
            ({}, {"rotary_dim": 2}),
        ),
        refuses=(
            ({"num_attention_heads": 5}, "CorruptCheckpointError", "not a multiple of num_attention_heads"),
            ({"use_parallel_residual": 1}, "CorruptCheckpointError", "not true or false"),
            ({"rotary_emb_base": 20000, "rope_theta": 10000}, "UnhandledConfigError",
             r"rotary_emb_base = 20000, rope_theta = 10000: which one\?"),
        ),
        published={
            "pythia": {"bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu", "initializer_range": 0.02,
                       "layer_norm_eps": 1e-05, "rotary_emb_base": 10000, "rotary_pct": 0.5,
                       "tie_word_embeddings": False, "torch_dtype": "float16", "transformers_version": "4.24.0",
                       "use_cache": True, "use_parallel_residual": True},
            "20b": {"attention_probs_dropout_prob": 0, "hidden_act": "gelu_fast", "hidden_dropout_prob": 0,
                    "layer_norm_eps": 1e-05, "rotary_emb_base": 10000, "rotary_pct": 0.5},
        },
        by_hand="gpt_neox",
    ),
    "gpt_oss": Family(
        "GptOssConfig", {**WITH_HEADS, **EXPERTS}, {**RMS, "use_attention_sinks": True},
        # The class of transformers 4 has a default of the older field.
        beside={"rope_parameters": {"rope_type": "default", "rope_theta": 150000.0}, "rope_scaling": None},
        means=(({"sliding_window": 5}, {"windows": [5, None, 5, None]}),),
        refuses=(({"rope_parameters": ...}, "UnhandledConfigError", "rope_parameters is not there"),),
    ),
    "gptj": Family(
        "GPTJConfig",
        {"n_embd": 48, "n_head": 6, "n_layer": 4, "vocab_size": 113, "n_positions": 64},
        {**LN, "parallel_attn_mlp": True, "rotary_adjacent_pairs": True},
        beside={"rotary_dim": 4},
        means=(
            ({"rotary_dim": None}, {"rotary_dim": 8}),
            ({"n_inner": None}, {"d_mlp": 192}),
            ({"n_inner": 80}, {"d_mlp": 80}),
        ),
        refuses=(
            ({"rotary_dim": 10}, "CorruptCheckpointError", "rotary_dim"),
            ({"rotary_dim": 3}, "CorruptCheckpointError", "rotary_dim"),
        ),
    ),
    "granite": Family(
        "GraniteConfig", SIZES, RMS,
        means=(
            *UNGROUPED,
            ({"attention_multiplier": 0.5}, {"attn_scale": 2.0}),
            ({"logits_scaling": 4.0}, {"logit_multiplier": 0.25}),
        ),
        refuses=(({"logits_scaling": 0.0}, "CorruptCheckpointError", "not above 0"),),
        by_hand="llama_like",
    ),
    "llama": Family(
        "LlamaConfig", SIZES, RMS,
        means=(
            *UNGROUPED,
            ({"num_key_value_heads": ...}, {"n_key_value_heads": None}),
            ({}, {"windows": [None] * 4}),
            *(({"hidden_act": name}, {"act_fn": name})
              for name in ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "silu", "relu")),
            ({"hidden_act": "swish"}, {"act_fn": "silu"}),
        ),
        refuses=(
            ({"num_key_value_heads": 4}, "CorruptCheckpointError", "not a multiple of num_key_value_heads"),
            ({"attention_bias": "no"}, "CorruptCheckpointError", "not true or false"),
            ({"tie_word_embeddings": "no"}, "CorruptCheckpointError", "not true or false"),
            ({"rms_norm_eps": "1e-5"}, "CorruptCheckpointError", "not a number"),
            ({"rms_norm_eps": -1e-5}, "CorruptCheckpointError", "not above 0"),
            *(({"hidden_act": name}, "UnhandledConfigError", "hidden_act")
              for name in ("quick_gelu", "solu", ["silu"], 3, {})),
        ),
        published={
            "SmolLM2": {"attention_bias": False, "attention_dropout": 0.0, "is_llama_config": True, "mlp_bias": False,
                        "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_scaling": None,
                        "rope_theta": 100000, "tie_word_embeddings": True, "transformers.js_config": {"dtype": "q4"}},
            "3.2": {"attention_bias": False, "head_dim": 8, "mlp_bias": False, "pretraining_tp": 1,
                    "rope_theta": 500000.0,
                    "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
                    "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True},
            "an early one": {"max_sequence_length": 2048, "pad_token_id": 0, "transformers_version": "4.28.0.dev0"},
        },
        by_hand="llama_like",
    ),
    "mistral": Family(
        "MistralConfig", SIZES, RMS,
        means=(
            *GROUPED,
            *EVERY_WINDOW,
            ({}, {"windows": [4096] * 4}),
            ({"num_key_value_heads": ..., "num_attention_heads": 16, "hidden_size": 128}, {"n_key_value_heads": 8}),
        ),
        refuses=(
            ({"sliding_window": "5"}, "CorruptCheckpointError", "sliding_window"),
            ({"sliding_window": -5}, "CorruptCheckpointError", "sliding_window"),
            ({"layer_types": ["full_attention"] * 4}, "UnhandledConfigError", "layer_types"),
        ),
        published={
            "7B": {"rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": False, "use_cache": True},
        },
        by_hand="llama_like",
    ),
    "mixtral": Family(
        "MixtralConfig", {**SIZES, **EXPERTS}, RMS, means=(*GROUPED, *EVERY_WINDOW, ({}, {"windows": [None] * 4}))
    ),
    "olmo": Family(
        "OlmoConfig", SIZES, {**LN, "gated_mlp": True, "norm_weight": False},
        means=(*UNGROUPED, ({"clip_qkv": None}, {"clip_qkv": None}), ({"clip_qkv": 8.0}, {"clip_qkv": 8.0})),
        refuses=(({"clip_qkv": 0.0}, "CorruptCheckpointError", "not above 0"),),
    ),
    "olmo2": Family("Olmo2Config", SIZES, {**RMS, "norm_placement": "output"}, means=UNGROUPED),
    "olmo3": Family(
        "Olmo3Config", SIZES, {**RMS, "norm_placement": "output"},
        means=(
            ({"sliding_window": 5}, {"windows": [5, 5, 5, None]}),
            ({"rope_theta": 5e5}, {"rotary_base": 500000, "rotary_base_local": 500000}),
        ),
        refuses=(({"rope_theta": 7e5}, "UnhandledConfigError", "releases of transformers differ"),),
    ),
    "olmoe": Family("OlmoeConfig", {**SIZES, "num_experts": 5, "num_experts_per_tok": 2}, RMS),
    "opt": Family(
        "OPTConfig",
        {"hidden_size": 48, "num_attention_heads": 6, "ffn_dim": 80, "num_hidden_layers": 4, "vocab_size": 113,
         "max_position_embeddings": 64},
        {**LN, "positional_embedding_type": "standard"},
        means=(
            ({"do_layer_norm_before": False}, {"norm_placement": "post", "has_final_norm": False}),
            ({"_remove_final_layer_norm": True}, {"has_final_norm": False}),
            ({"layer_norm_elementwise_affine": False}, {"norm_weight": False}),
        ),
    ),
    "phi": Family("PhiConfig", SIZES, {**LN, "parallel_attn_mlp": True}, means=UNGROUPED),
    "phi3": Family(
        "Phi3Config", SIZES, RMS,
        means=(
            ({"num_key_value_heads": None}, {"n_key_value_heads": None}),
            ({"num_key_value_heads": ...}, {"n_key_value_heads": None}),
            *EVERY_WINDOW,
            ({}, {"windows": [None] * 4}),
            # One rotation goes by three names.
            *(({"original_max_position_embeddings": 16, "rope_scaling": {"type": kind, **DOUBLED}}, longrope(16, 64))
              for kind in ("su", "yarn", "longrope")),
            # The length beside the dict goes before the one inside, in both generations; 4096 is the class's default.
            ({"rope_scaling": {"type": "su", **DOUBLED, "original_max_position_embeddings": 8}}, longrope(8, 64)),
            ({"original_max_position_embeddings": 16,
              "rope_scaling": {"type": "su", **DOUBLED, "original_max_position_embeddings": 8}}, longrope(16, 64)),
            ({"max_position_embeddings": 131072, "rope_scaling": {"type": "su", **DOUBLED}}, longrope(4096, 131072)),
        ),
        published={
            "4-mini": {"attention_bias": False, "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"},
                       "embd_pdrop": 0.0, "full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": False,
                       "mlp_bias": False, "original_max_position_embeddings": 16, "partial_rotary_factor": 0.75,
                       "resid_pdrop": 0.0,
                       "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 3, "long_factor": [1, 1.1, 1.2]},
                       "rope_theta": 10000.0, "sliding_window": 262144, "tie_word_embeddings": True},
        },
        by_hand="llama_like",
    ),
    "qwen2": Family(
        "Qwen2Config", SIZES, {**RMS, "default_prepend_bos": False},
        means=(
            *GROUPED,
            *QWEN_WINDOWS,
            ({"num_key_value_heads": ..., "num_attention_heads": 64, "hidden_size": 512}, {"n_key_value_heads": 32}),
        ),
        refuses=(
            ({"layer_types": ["sliding_attention"] * 4, "sliding_window": 5}, "UnhandledConfigError", "denies"),
            ({"layer_types": ["chunked_attention"] * 4}, "UnhandledConfigError", "chunked_attention"),
            ({"layer_types": ["full_attention"] * 3}, "CorruptCheckpointError", "not a list of 4"),
            ({"layer_types": "full_attention"}, "CorruptCheckpointError", "not a list of 4"),
            ({"max_window_layers": -1}, "CorruptCheckpointError", "max_window_layers"),
        ),
        published={
            "2.5": {"attention_dropout": 0.0, "max_window_layers": 24, "rope_theta": 1000000.0, "sliding_window": 32768,
                    "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_mrope": False,
                    "use_sliding_window": False},
        },
        by_hand="llama_like",
    ),
    "qwen2_moe": Family(
        "Qwen2MoeConfig",
        {**SIZES, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 20,
         "shared_expert_intermediate_size": 28},
        {**RMS, "default_prepend_bos": False},
        means=(*GROUPED, *QWEN_WINDOWS),
    ),
    "qwen3": Family(
        "Qwen3Config", WITH_HEADS, {**RMS, "default_prepend_bos": False, "use_qk_norm": True},
        means=(*UNGROUPED, *QWEN_WINDOWS), by_hand="llama_like",
    ),
    "qwen3_moe": Family(
        "Qwen3MoeConfig",
        {**WITH_HEADS, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 20},
        {**RMS, "default_prepend_bos": False, "use_qk_norm": True},
        means=(
            ({"sliding_window": 5}, {"windows": [None] * 4}),
            ({"sliding_window": 5, "use_sliding_window": True}, {"windows": [5] * 4}),
            ({"mlp_only_layers": [1]}, {"expert_layers": [True, False, True, True]}),
            ({"decoder_sparse_step": 2}, {"expert_layers": [False, True, False, True]}),
        ),
        refuses=(({"mlp_only_layers": 1}, "CorruptCheckpointError", "not a list"),),
    ),
    "smollm3": Family(
        "SmolLM3Config", SIZES, RMS,
        means=(
            *UNGROUPED,
            ({}, {"rotary_layers": [True, True, True, False], "windows": [None] * 4}),
            ({"no_rope_layers": [0, 1, 1, 1]}, {"rotary_layers": [False, True, True, True]}),
            ({"no_rope_layers": [0, 1, 1, 1], "use_sliding_window": True, "sliding_window": 5},
             {"windows": [5, None, None, None]}),
        ),
        refuses=(({"no_rope_layers": [1, 1]}, "CorruptCheckpointError", "not a list of 4"),),
        by_hand="llama_like",
    ),
    "stablelm": Family(
        "StableLmConfig", SIZES, {**LN, "gated_mlp": True},
        means=(({"qk_layernorm": True}, {"use_qk_norm": True, "qk_norm_kind": "LN by head"}),),
    ),
    "starcoder2": Family(
        "Starcoder2Config", SIZES, LN, means=(*UNGROUPED, *EVERY_WINDOW, ({}, {"windows": [None] * 4}))
    ),
}  # fmt: skip
