"""The variants of the first families: a config each."""

from __future__ import annotations

from typing import Any

from tests.tiny_families.variant import (
    GPT2,
    LLAMA,
    LONG,
    MHA,
    NEOX,
    PHI,
    SHORTER,
    SQUARE,
    Variant,
    rope,
)

VARIANTS: dict[str, Variant] = {
    "gpt2": Variant("GPT2Config", GPT2),
    "gpt2-inner-inverse-untied": Variant(
        "GPT2Config",
        {**GPT2, "n_layer": 3, "n_inner": 80, "scale_attn_by_inverse_layer_idx": True, "tie_word_embeddings": False},
    ),
    "gpt2-unscaled": Variant("GPT2Config", {**GPT2, "scale_attn_weights": False}),
    "gpt2-square": Variant("GPT2Config", {**GPT2, "n_inner": 48, "vocab_size": 48, "n_positions": 48}),
    "gpt-neox": Variant("GPTNeoXConfig", {**NEOX, **rope("default", partial_rotary_factor=0.25)}),
    "gpt-neox-serial": Variant(
        "GPTNeoXConfig",
        {
            **NEOX,
            "num_attention_heads": 6,
            "use_parallel_residual": False,
            "attention_bias": False,
            "tie_word_embeddings": True,
            **rope("default", partial_rotary_factor=1.0),
        },
        traits={"parallel_attn_mlp": False},
    ),  # fmt: skip
    "gpt-neox-square": Variant(
        "GPTNeoXConfig",
        {**NEOX, "intermediate_size": 48, "vocab_size": 48, **rope("default", partial_rotary_factor=0.5)},
    ),
    "llama": Variant("LlamaConfig", MHA),
    "llama-gqa": Variant("LlamaConfig", LLAMA),
    "llama-mqa": Variant("LlamaConfig", {**LLAMA, "num_key_value_heads": 1}),
    "llama-tied": Variant("LlamaConfig", {**LLAMA, "tie_word_embeddings": True}),
    "llama-square": Variant("LlamaConfig", SQUARE),
    "llama-head-dim": Variant("LlamaConfig", {**LLAMA, "head_dim": 10}),
    "llama-bias": Variant("LlamaConfig", {**LLAMA, "attention_bias": True, "mlp_bias": True}),
    "llama-linear": Variant("LlamaConfig", {**LLAMA, **rope("linear", factor=4.0)}),
    "llama-dynamic": Variant("LlamaConfig", {**LLAMA, "max_position_embeddings": 24, **rope("dynamic", factor=4.0)}),
    "llama-llama3": Variant(
        "LlamaConfig",
        {
            **LLAMA,
            **rope(
                "llama3",
                500000.0,
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=32,
            ),
        },
    ),  # fmt: skip
    "llama-yarn": Variant(
        "LlamaConfig",
        {**LLAMA, **rope("yarn", factor=4.0, original_max_position_embeddings=16)},
        right_since="4.55",
    ),
    "mistral": Variant("MistralConfig", {**LLAMA, "sliding_window": 5}),
    "mistral-full": Variant("MistralConfig", {**LLAMA, "sliding_window": None, "head_dim": 10}),
    "mistral-square": Variant("MistralConfig", {**SQUARE, "sliding_window": 7, "num_key_value_heads": 6}),
    "qwen2": Variant("Qwen2Config", LLAMA),
    "qwen2-tied": Variant("Qwen2Config", {**LLAMA, "tie_word_embeddings": True}),
    "qwen2-windows": Variant(
        "Qwen2Config",
        {**LLAMA, "num_hidden_layers": 4, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2},
        right_since="4.55",
    ),
    "qwen2-square": Variant("Qwen2Config", SQUARE),
    "phi3": Variant("Phi3Config", {**PHI, "num_key_value_heads": 6, "sliding_window": 5}),
    "phi3-gqa": Variant("Phi3Config", PHI),
    "phi3-square": Variant("Phi3Config", {**PHI, "intermediate_size": 48, "vocab_size": 48}),
    "phi3-longrope": Variant(
        "Phi3Config",
        {
            **PHI,
            "original_max_position_embeddings": 32,
            **rope("longrope", original_max_position_embeddings=32, partial_rotary_factor=1.0, **LONG),
        },
    ),  # fmt: skip
    "phi3-mini": Variant(
        "Phi3Config",
        {
            **PHI,
            "tie_word_embeddings": True,
            "original_max_position_embeddings": 32,
            **rope("longrope", original_max_position_embeddings=32, partial_rotary_factor=0.75, **SHORTER),
        },
    ),  # fmt: skip
}


_GEMMA = {**LLAMA, "head_dim": 10, "pad_token_id": 0}
_GEMMA_2 = {**_GEMMA, "num_hidden_layers": 3, "query_pre_attn_scalar": 13, "sliding_window": 5}
_NEO = {
    "hidden_size": 48, "num_heads": 6, "num_layers": 2, "intermediate_size": 80, "vocab_size": 113,
    "max_position_embeddings": 64, "attention_types": [[["global", "local"], 1]], "window_size": 5,
}  # fmt: skip
_GPTJ = {"n_embd": 48, "n_head": 6, "n_layer": 2, "n_inner": 80, "vocab_size": 113, "n_positions": 64, "rotary_dim": 4}
_OPT = {
    "hidden_size": 48, "num_attention_heads": 6, "ffn_dim": 80, "num_hidden_layers": 2, "vocab_size": 113,
    "max_position_embeddings": 64, "word_embed_proj_dim": 48,
}  # fmt: skip
_OPT_350M = {**_OPT, "do_layer_norm_before": False, "word_embed_proj_dim": 20}
_LOGITS = {"logit_scale": 0.25}
_GRANITE = {
    **LLAMA, "embedding_multiplier": 3.0, "attention_multiplier": 0.2, "residual_multiplier": 0.4,
    "logits_scaling": 2.5,
}  # fmt: skip


def _two_ropes(theta: float, local_theta: float, **numbers: Any) -> dict[str, Any]:
    full = {"rope_type": "default", "rope_theta": theta, **numbers}
    return {
        "rope_parameters": {
            "full_attention": full,
            "sliding_attention": {"rope_type": "default", "rope_theta": local_theta},
        }
    }


VARIANTS |= {
    "bloom": Variant("BloomConfig", {"hidden_size": 48, "n_head": 6, "n_layer": 2, "vocab_size": 113}),
    "bloom-square": Variant("BloomConfig", {"hidden_size": 48, "n_head": 4, "n_layer": 2, "vocab_size": 48}),
    "cohere": Variant("CohereConfig", {**LLAMA, **_LOGITS, **rope("default", 500.0)}),
    "cohere-norms-bias": Variant(
        "CohereConfig",
        {
            **LLAMA,
            **_LOGITS,
            **rope("default"),
            "use_qk_norm": True,
            "attention_bias": True,
            "tie_word_embeddings": False,
        },
    ),
    "cohere-square": Variant("CohereConfig", {**SQUARE, **_LOGITS, **rope("default"), "num_key_value_heads": 6}),
    "cohere2": Variant(
        "Cohere2Config",
        {**LLAMA, **_LOGITS, "num_hidden_layers": 4, "head_dim": 10, "sliding_window": 5, **rope("default")},
    ),
    "cohere2-bias": Variant(
        "Cohere2Config", {**LLAMA, **_LOGITS, "head_dim": 10, "attention_bias": True, **rope("default")}
    ),
    "gemma": Variant("GemmaConfig", _GEMMA, norm_weights=0.0),
    "gemma-square": Variant(
        "GemmaConfig",
        {**_GEMMA, "num_key_value_heads": 1, "intermediate_size": 48, "vocab_size": 48, "attention_bias": True},
        norm_weights=0.0,
    ),
    "gemma2": Variant("Gemma2Config", _GEMMA_2, norm_weights=0.0),
    "gemma2-uncapped-bias": Variant(
        "Gemma2Config",
        {
            **_GEMMA_2,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "attention_bias": True,
            "tie_word_embeddings": False,
        },
        norm_weights=0.0,
    ),
    "gemma2-square": Variant("Gemma2Config", {**_GEMMA_2, "intermediate_size": 48, "vocab_size": 48}, norm_weights=0.0),
    "gemma3": Variant(
        "Gemma3TextConfig", {**_GEMMA_2, "num_hidden_layers": 7, **_two_ropes(100000.0, 500.0)}, norm_weights=0.0
    ),
    "gemma3-linear": Variant(
        "Gemma3TextConfig",
        {
            **_GEMMA_2,
            "attention_bias": True,
            "num_hidden_layers": 3,
            "sliding_window_pattern": 2,
            **_two_ropes(100000.0, 500.0, rope_type="linear", factor=4.0),
        },
        norm_weights=0.0,
    ),
    "gpt-neo": Variant("GPTNeoConfig", _NEO),
    "gpt-neo-square": Variant("GPTNeoConfig", {**_NEO, "intermediate_size": 48, "vocab_size": 48}),
    "gptj": Variant("GPTJConfig", _GPTJ),
    "gptj-whole-heads": Variant("GPTJConfig", {**_GPTJ, "rotary_dim": 8, "n_inner": None}),
    "gptj-square": Variant("GPTJConfig", {**_GPTJ, "n_inner": 48, "vocab_size": 48}),
    "granite": Variant("GraniteConfig", _GRANITE),
    "granite-tied-bias": Variant(
        "GraniteConfig", {**_GRANITE, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}
    ),
    "olmo": Variant("OlmoConfig", MHA),
    "olmo-gqa-clip": Variant(
        "OlmoConfig", {**LLAMA, "clip_qkv": 0.8, "attention_bias": True, "tie_word_embeddings": True}
    ),
    "olmo-square": Variant("OlmoConfig", SQUARE),
    "olmo2": Variant("Olmo2Config", MHA),
    "olmo2-gqa-bias": Variant("Olmo2Config", {**LLAMA, "attention_bias": True}),
    "olmo2-square": Variant("Olmo2Config", SQUARE),
    "olmo3": Variant(
        "Olmo3Config", {**LLAMA, "num_hidden_layers": 5, "sliding_window": 5, **_two_ropes(500000.0, 500000.0)}
    ),
    "olmo3-yarn": Variant(
        "Olmo3Config",
        {
            **LLAMA,
            "num_hidden_layers": 5,
            "attention_bias": True,
            "sliding_window": 5,
            **_two_ropes(
                500000.0,
                500000.0,
                rope_type="yarn",
                factor=4.0,
                original_max_position_embeddings=16,
                attention_factor=1.2,
                beta_fast=32.0,
                beta_slow=1.0,
            ),
        },
    ),  # fmt: skip
    "opt": Variant("OPTConfig", _OPT),
    "opt-350m": Variant("OPTConfig", _OPT_350M),
    "opt-galactica": Variant(
        "OPTConfig",
        {**_OPT, "enable_bias": False, "layer_norm_elementwise_affine": False, "activation_function": "gelu"},
    ),
    "opt-square": Variant("OPTConfig", {**_OPT, "ffn_dim": 48, "vocab_size": 48}),
    "phi": Variant("PhiConfig", {**MHA, **rope("default", partial_rotary_factor=0.5)}),
    "phi-gqa-norms": Variant(
        "PhiConfig", {**LLAMA, "qk_layernorm": True, **rope("default", partial_rotary_factor=0.25)}
    ),
    "phi-square": Variant("PhiConfig", {**SQUARE, **rope("default", partial_rotary_factor=0.5)}),
    "qwen3": Variant("Qwen3Config", {**LLAMA, "head_dim": 10}),
    "qwen3-windows-bias": Variant(
        "Qwen3Config",
        {
            **MHA,
            "head_dim": 10,
            "num_hidden_layers": 4,
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 2,
            "attention_bias": True,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3-square": Variant("Qwen3Config", {**SQUARE, "head_dim": 10}),
    "smollm3": Variant("SmolLM3Config", {**LLAMA, "num_hidden_layers": 5, "pad_token_id": 0}),
    "smollm3-windows": Variant(
        "SmolLM3Config",
        {
            **LLAMA,
            "num_hidden_layers": 4,
            "pad_token_id": 0,
            "no_rope_layers": [1, 0, 1, 0],
            "use_sliding_window": True,
            "sliding_window": 5,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": False,
        },
    ),
    "stablelm": Variant("StableLmConfig", {**MHA, "use_qkv_bias": True, **rope("default", partial_rotary_factor=0.25)}),
    "stablelm-parallel": Variant(
        "StableLmConfig",
        {
            **LLAMA,
            "use_parallel_residual": True,
            "qk_layernorm": True,
            **rope("default", partial_rotary_factor=0.25),
        },
        traits={"parallel_attn_mlp": True},
        # Norms without a bias, which LayerNorm has not before.
        torch_since="2.1",
    ),
    "stablelm-square": Variant("StableLmConfig", {**SQUARE, **rope("default", partial_rotary_factor=0.5)}),
    "starcoder2": Variant("Starcoder2Config", {**LLAMA, "sliding_window": 5}),
    "starcoder2-unbiased": Variant("Starcoder2Config", {**LLAMA, "use_bias": False, "tie_word_embeddings": False}),
    "starcoder2-square": Variant("Starcoder2Config", SQUARE),
}


VARIANTS |= {
    "gemma3-that-sees": Variant(
        "Gemma3Config",
        {
            "text_config": {**_GEMMA_2, "sliding_window_pattern": 2, **_two_ropes(100000.0, 500.0)},
            "vision_config": {
                "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2,
                "image_size": 28, "patch_size": 14,
            },
            "mm_tokens_per_image": 4,
            # Inside the small vocabulary, and in no sentence of tests.
            "image_token_index": 112, "boi_token_index": 111, "eoi_token_index": 110,
        },
        norm_weights=0.0,
    ),
}  # fmt: skip


_MIXTURE = {**LLAMA, "num_experts_per_tok": 2, "num_local_experts": 5}
_QWEN_MIXTURE = {
    **LLAMA, "head_dim": 10, "num_experts_per_tok": 2, "num_experts": 5, "moe_intermediate_size": 20,
    "norm_topk_prob": True,
}  # fmt: skip

VARIANTS |= {
    "mixtral": Variant("MixtralConfig", _MIXTURE),
    "mixtral-windows": Variant("MixtralConfig", {**_MIXTURE, "sliding_window": 5, "tie_word_embeddings": True}),
    "mixtral-square": Variant("MixtralConfig", {**SQUARE, "num_experts_per_tok": 2, "num_local_experts": 4}),
    "qwen3-moe": Variant("Qwen3MoeConfig", _QWEN_MIXTURE),
    "qwen3-moe-dense-between": Variant(
        "Qwen3MoeConfig",
        {
            **_QWEN_MIXTURE,
            "num_hidden_layers": 4,
            "decoder_sparse_step": 2,
            "mlp_only_layers": [3],
            "norm_topk_prob": False,
            "attention_bias": True,
        },
    ),
    "qwen3-moe-square": Variant("Qwen3MoeConfig", {**_QWEN_MIXTURE, "moe_intermediate_size": 48, "vocab_size": 48}),
    "qwen2-moe": Variant(
        "Qwen2MoeConfig",
        {
            **LLAMA,
            "num_experts_per_tok": 2,
            "num_experts": 5,
            "moe_intermediate_size": 20,
            "shared_expert_intermediate_size": 28,
            "decoder_sparse_step": 1,
        },
    ),
    "qwen2-moe-dense-between": Variant(
        "Qwen2MoeConfig",
        {
            **LLAMA,
            "num_hidden_layers": 3,
            "num_experts_per_tok": 2,
            "num_experts": 5,
            "moe_intermediate_size": 20,
            "shared_expert_intermediate_size": 28,
            "decoder_sparse_step": 2,
            "norm_topk_prob": True,
            "qkv_bias": False,
        },
        fields_since="4.55",
    ),
    "olmoe": Variant("OlmoeConfig", {**LLAMA, "num_experts_per_tok": 2, "num_experts": 5}),
    "olmoe-clip": Variant(
        "OlmoeConfig",
        {
            **MHA,
            "num_experts_per_tok": 3,
            "num_experts": 6,
            "attention_bias": True,
            "clip_qkv": 0.8,
            "norm_topk_prob": True,
        },
    ),
    "gpt-oss": Variant(
        "GptOssConfig",
        {
            **_MIXTURE,
            "head_dim": 16,
            "sliding_window": 5,
            **rope("yarn", 150000.0, factor=4.0, original_max_position_embeddings=16, truncate=False),
        },
    ),
    "gpt-oss-square": Variant(
        "GptOssConfig",
        {**_MIXTURE, "head_dim": 8, "intermediate_size": 48, "vocab_size": 48, **rope("linear", factor=2.0)},
    ),
}
