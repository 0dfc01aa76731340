"""Tiny random models of every architecture and variant, made on the spot."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from packaging.version import Version


@dataclass(frozen=True)
class Variant:
    """A transformers config by the name of its class and its fields."""

    config_class: str
    settings: dict[str, Any]
    # The first release of transformers whose own forward pass is right for it.
    right_since: str = "4.49"
    # What the weights of norms lie around, so that a norm multiplies by about one.
    norm_weights: float = 1.0
    # Fields of ours that differ from those of the family.
    traits: dict[str, Any] = field(default_factory=dict)

    def why_no_reference(self) -> str | None:
        """Says why the installed transformers cannot be compared with; None where it can."""
        import transformers

        if not hasattr(transformers, self.config_class):
            return f"transformers has no {self.config_class} in this release"
        if Version(transformers.__version__) < Version(self.right_since):
            return f"transformers computes this wrongly before {self.right_since}"
        return None

    def config(self) -> Any:
        """Makes the config, in whichever spelling this transformers understands."""
        import transformers

        return getattr(transformers, self.config_class)(**_spelled(self.config_class, self.settings))


def _spelled(config_class: str, settings: dict[str, Any]) -> dict[str, Any]:
    import transformers

    out = dict(settings)
    if "text_config" in out:
        out["text_config"] = _spelled(config_class.replace("Config", "TextConfig"), out["text_config"])
    rope = out.get("rope_parameters")
    if rope is not None and int(transformers.__version__.split(".")[0]) < 5:
        rope = dict(out.pop("rope_parameters"))
        if "full_attention" in rope:
            # One set, of the layers without a window, and the other base in a field of its own, if at all.
            if config_class == "Gemma3TextConfig":
                out["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
            rope = dict(rope["full_attention"])
        neox = config_class == "GPTNeoXConfig"
        out["rotary_emb_base" if neox else "rope_theta"] = rope.pop("rope_theta", 10000.0)
        partial = rope.pop("partial_rotary_factor", None)
        if partial is not None:
            out["rotary_pct" if neox else "partial_rotary_factor"] = partial
        if out.get("original_max_position_embeddings") is not None:
            rope.pop("original_max_position_embeddings", None)
        if config_class == "Phi3Config" and rope["rope_type"] == "longrope":
            # Releases before 5 accept these three names for this family and no other.
            rope = {"type": "longrope", "short_factor": rope["short_factor"], "long_factor": rope["long_factor"]}
        out["rope_scaling"] = None if rope.get("rope_type") == "default" else rope
    return out


_LLAMA = {
    "hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 3, "intermediate_size": 80, "vocab_size": 113,
    "max_position_embeddings": 64, "num_hidden_layers": 2,
}  # fmt: skip
_SQUARE = {**_LLAMA, "intermediate_size": 48, "vocab_size": 48}
_MHA = {**_LLAMA, "num_key_value_heads": 6}
_PHI = {**_LLAMA, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_GPT2 = {"n_embd": 48, "n_head": 6, "n_layer": 2, "vocab_size": 113, "n_positions": 64}
_NEOX = {
    "hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 80, "vocab_size": 113,
    "max_position_embeddings": 64, "num_hidden_layers": 2,
}  # fmt: skip


def _rope(kind: str, theta: float = 10000.0, **numbers: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **numbers}}


_LONG = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.5, 2.0, 2.5, 3.0]}
_SHORTER = {"short_factor": [1.0, 1.1, 1.2], "long_factor": [1.5, 2.0, 2.5]}

VARIANTS: dict[str, Variant] = {
    "gpt2": Variant("GPT2Config", _GPT2),
    "gpt2-inner-inverse-untied": Variant(
        "GPT2Config",
        {**_GPT2, "n_layer": 3, "n_inner": 80, "scale_attn_by_inverse_layer_idx": True, "tie_word_embeddings": False},
    ),
    "gpt2-unscaled": Variant("GPT2Config", {**_GPT2, "scale_attn_weights": False}),
    "gpt2-square": Variant("GPT2Config", {**_GPT2, "n_inner": 48, "vocab_size": 48, "n_positions": 48}),
    "gpt-neox": Variant("GPTNeoXConfig", {**_NEOX, **_rope("default", partial_rotary_factor=0.25)}),
    "gpt-neox-serial": Variant(
        "GPTNeoXConfig",
        {
            **_NEOX,
            "num_attention_heads": 6,
            "use_parallel_residual": False,
            "attention_bias": False,
            "tie_word_embeddings": True,
            **_rope("default", partial_rotary_factor=1.0),
        },
        traits={"parallel_attn_mlp": False},
    ),  # fmt: skip
    "gpt-neox-square": Variant(
        "GPTNeoXConfig",
        {**_NEOX, "intermediate_size": 48, "vocab_size": 48, **_rope("default", partial_rotary_factor=0.5)},
    ),
    "llama": Variant("LlamaConfig", _MHA),
    "llama-gqa": Variant("LlamaConfig", _LLAMA),
    "llama-mqa": Variant("LlamaConfig", {**_LLAMA, "num_key_value_heads": 1}),
    "llama-tied": Variant("LlamaConfig", {**_LLAMA, "tie_word_embeddings": True}),
    "llama-square": Variant("LlamaConfig", _SQUARE),
    "llama-head-dim": Variant("LlamaConfig", {**_LLAMA, "head_dim": 10}),
    "llama-bias": Variant("LlamaConfig", {**_LLAMA, "attention_bias": True, "mlp_bias": True}),
    "llama-linear": Variant("LlamaConfig", {**_LLAMA, **_rope("linear", factor=4.0)}),
    "llama-dynamic": Variant("LlamaConfig", {**_LLAMA, "max_position_embeddings": 24, **_rope("dynamic", factor=4.0)}),
    "llama-llama3": Variant(
        "LlamaConfig",
        {
            **_LLAMA,
            **_rope(
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
        {**_LLAMA, **_rope("yarn", factor=4.0, original_max_position_embeddings=16)},
        right_since="4.55",
    ),
    "mistral": Variant("MistralConfig", {**_LLAMA, "sliding_window": 5}),
    "mistral-full": Variant("MistralConfig", {**_LLAMA, "sliding_window": None, "head_dim": 10}),
    "mistral-square": Variant("MistralConfig", {**_SQUARE, "sliding_window": 7, "num_key_value_heads": 6}),
    "qwen2": Variant("Qwen2Config", _LLAMA),
    "qwen2-tied": Variant("Qwen2Config", {**_LLAMA, "tie_word_embeddings": True}),
    "qwen2-windows": Variant(
        "Qwen2Config",
        {**_LLAMA, "num_hidden_layers": 4, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2},
        right_since="4.55",
    ),
    "qwen2-square": Variant("Qwen2Config", _SQUARE),
    "phi3": Variant("Phi3Config", {**_PHI, "num_key_value_heads": 6, "sliding_window": 5}),
    "phi3-gqa": Variant("Phi3Config", _PHI),
    "phi3-square": Variant("Phi3Config", {**_PHI, "intermediate_size": 48, "vocab_size": 48}),
    "phi3-longrope": Variant(
        "Phi3Config",
        {
            **_PHI,
            "original_max_position_embeddings": 32,
            **_rope("longrope", original_max_position_embeddings=32, partial_rotary_factor=1.0, **_LONG),
        },
    ),  # fmt: skip
    "phi3-mini": Variant(
        "Phi3Config",
        {
            **_PHI,
            "tie_word_embeddings": True,
            "original_max_position_embeddings": 32,
            **_rope("longrope", original_max_position_embeddings=32, partial_rotary_factor=0.75, **_SHORTER),
        },
    ),  # fmt: skip
}


_GEMMA = {**_LLAMA, "head_dim": 10, "pad_token_id": 0}
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
    **_LLAMA, "embedding_multiplier": 3.0, "attention_multiplier": 0.2, "residual_multiplier": 0.4,
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
    "cohere": Variant("CohereConfig", {**_LLAMA, **_LOGITS, **_rope("default", 500.0)}),
    "cohere-norms-bias": Variant(
        "CohereConfig",
        {
            **_LLAMA,
            **_LOGITS,
            **_rope("default"),
            "use_qk_norm": True,
            "attention_bias": True,
            "tie_word_embeddings": False,
        },
    ),
    "cohere-square": Variant("CohereConfig", {**_SQUARE, **_LOGITS, **_rope("default"), "num_key_value_heads": 6}),
    "cohere2": Variant(
        "Cohere2Config",
        {**_LLAMA, **_LOGITS, "num_hidden_layers": 4, "head_dim": 10, "sliding_window": 5, **_rope("default")},
    ),
    "cohere2-bias": Variant(
        "Cohere2Config", {**_LLAMA, **_LOGITS, "head_dim": 10, "attention_bias": True, **_rope("default")}
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
    "olmo": Variant("OlmoConfig", _MHA),
    "olmo-gqa-clip": Variant(
        "OlmoConfig", {**_LLAMA, "clip_qkv": 0.8, "attention_bias": True, "tie_word_embeddings": True}
    ),
    "olmo-square": Variant("OlmoConfig", _SQUARE),
    "olmo2": Variant("Olmo2Config", _MHA),
    "olmo2-gqa-bias": Variant("Olmo2Config", {**_LLAMA, "attention_bias": True}),
    "olmo2-square": Variant("Olmo2Config", _SQUARE),
    "olmo3": Variant(
        "Olmo3Config", {**_LLAMA, "num_hidden_layers": 5, "sliding_window": 5, **_two_ropes(500000.0, 500000.0)}
    ),
    "olmo3-yarn": Variant(
        "Olmo3Config",
        {
            **_LLAMA,
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
    "phi": Variant("PhiConfig", {**_MHA, **_rope("default", partial_rotary_factor=0.5)}),
    "phi-gqa-norms": Variant(
        "PhiConfig", {**_LLAMA, "qk_layernorm": True, **_rope("default", partial_rotary_factor=0.25)}
    ),
    "phi-square": Variant("PhiConfig", {**_SQUARE, **_rope("default", partial_rotary_factor=0.5)}),
    "qwen3": Variant("Qwen3Config", {**_LLAMA, "head_dim": 10}),
    "qwen3-windows-bias": Variant(
        "Qwen3Config",
        {
            **_MHA,
            "head_dim": 10,
            "num_hidden_layers": 4,
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 2,
            "attention_bias": True,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3-square": Variant("Qwen3Config", {**_SQUARE, "head_dim": 10}),
    "smollm3": Variant("SmolLM3Config", {**_LLAMA, "num_hidden_layers": 5, "pad_token_id": 0}),
    "smollm3-windows": Variant(
        "SmolLM3Config",
        {
            **_LLAMA,
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
    "stablelm": Variant(
        "StableLmConfig", {**_MHA, "use_qkv_bias": True, **_rope("default", partial_rotary_factor=0.25)}
    ),
    "stablelm-parallel": Variant(
        "StableLmConfig",
        {
            **_LLAMA,
            "use_parallel_residual": True,
            "qk_layernorm": True,
            **_rope("default", partial_rotary_factor=0.25),
        },
        traits={"parallel_attn_mlp": True},
    ),
    "stablelm-square": Variant("StableLmConfig", {**_SQUARE, **_rope("default", partial_rotary_factor=0.5)}),
    "starcoder2": Variant("Starcoder2Config", {**_LLAMA, "sliding_window": 5}),
    "starcoder2-unbiased": Variant("Starcoder2Config", {**_LLAMA, "use_bias": False, "tie_word_embeddings": False}),
    "starcoder2-square": Variant("Starcoder2Config", _SQUARE),
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


_MIXTURE = {**_LLAMA, "num_experts_per_tok": 2, "num_local_experts": 5}
_QWEN_MIXTURE = {
    **_LLAMA, "head_dim": 10, "num_experts_per_tok": 2, "num_experts": 5, "moe_intermediate_size": 20,
    "norm_topk_prob": True,
}  # fmt: skip

VARIANTS |= {
    "mixtral": Variant("MixtralConfig", _MIXTURE),
    "mixtral-windows": Variant("MixtralConfig", {**_MIXTURE, "sliding_window": 5, "tie_word_embeddings": True}),
    "mixtral-square": Variant("MixtralConfig", {**_SQUARE, "num_experts_per_tok": 2, "num_local_experts": 4}),
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
            **_LLAMA,
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
            **_LLAMA,
            "num_hidden_layers": 3,
            "num_experts_per_tok": 2,
            "num_experts": 5,
            "moe_intermediate_size": 20,
            "shared_expert_intermediate_size": 28,
            "decoder_sparse_step": 2,
            "norm_topk_prob": True,
            "qkv_bias": False,
        },
    ),
    "olmoe": Variant("OlmoeConfig", {**_LLAMA, "num_experts_per_tok": 2, "num_experts": 5}),
    "olmoe-clip": Variant(
        "OlmoeConfig",
        {
            **_MHA,
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
            **_rope("yarn", 150000.0, factor=4.0, original_max_position_embeddings=16, truncate=False),
        },
    ),
    "gpt-oss-square": Variant(
        "GptOssConfig",
        {**_MIXTURE, "head_dim": 8, "intermediate_size": 48, "vocab_size": 48, **_rope("linear", factor=2.0)},
    ),
}


@dataclass(frozen=True)
class Family:
    """What tests know of a family: facts of its config that no variant shows.

    In fields of a config, ``...`` stands for one that is not there at all.
    """

    config_class: str
    # The sizes that config.json says at least, pairwise distinct.
    least: dict[str, Any]
    # Fields of ours that follow for every variant, if the variant does not say otherwise.
    traits: dict[str, Any]
    # What else the least config has to say.
    beside: dict[str, Any] = field(default_factory=dict)
    # (fields of the config, what follows); "windows" are those of the layers.
    means: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = ()
    # (fields of the config, name of the error, what its message says).
    refuses: tuple[tuple[dict[str, Any], str, str], ...] = ()
    # Fields that published checkpoints carry.
    published: dict[str, dict[str, Any]] = field(default_factory=dict)
    # The function of tests/unit/loading/by_hand.py that converts a live model, where there is one.
    by_hand: str | None = None


_SIZES = {
    "hidden_size": 48, "num_attention_heads": 6, "intermediate_size": 80, "vocab_size": 113,
    "max_position_embeddings": 64, "num_hidden_layers": 4, "num_key_value_heads": 3,
}  # fmt: skip
_WITH_HEADS = {**_SIZES, "head_dim": 10}
_EXPERTS = {"num_local_experts": 5, "num_experts_per_tok": 2}
_RMS = {
    "normalization_type": "RMS", "parallel_attn_mlp": False, "default_prepend_bos": True, "gated_mlp": True,
    "positional_embedding_type": "rotary",
}  # fmt: skip
_LN = {**_RMS, "normalization_type": "LN", "gated_mlp": False}
_UNGROUPED = (
    ({"num_key_value_heads": 6}, {"n_key_value_heads": None}),
    ({"num_key_value_heads": None}, {"n_key_value_heads": None}),
    ({"num_key_value_heads": 1}, {"n_key_value_heads": 1}),
)
_GROUPED = (
    ({"num_key_value_heads": 6}, {"n_key_value_heads": 6}),
    ({"num_key_value_heads": None}, {"n_key_value_heads": 6}),
)
_QWEN_WINDOWS = (
    ({"sliding_window": 5, "max_window_layers": 1}, {"windows": [None] * 4}),
    ({"sliding_window": 5, "max_window_layers": 1, "use_sliding_window": True}, {"windows": [None, 5, 5, 5]}),
    ({"sliding_window": 5, "max_window_layers": 0, "use_sliding_window": True}, {"windows": [5] * 4}),
    ({"sliding_window": 0, "max_window_layers": 0, "use_sliding_window": True}, {"windows": [None] * 4}),
    ({"sliding_window": 5, "use_sliding_window": True}, {"windows": [None] * 4}),
    ({"max_window_layers": 3, "use_sliding_window": True}, {"windows": [None, None, None, 4096]}),
    ({"sliding_window": None, "max_window_layers": 1, "use_sliding_window": True}, {"windows": [None] * 4}),
    ({"sliding_window": 5, "max_window_layers": 4, "use_sliding_window": True,
      "layer_types": ["sliding_attention", "full_attention"] * 2}, {"windows": [5, None, 5, None]}),
    ({"layer_types": ["full_attention"] * 4}, {"windows": [None] * 4}),
)  # fmt: skip
_EVERY_WINDOW = (
    ({"sliding_window": None}, {"windows": [None] * 4}),
    ({"sliding_window": 0}, {"windows": [None] * 4}),
    ({"sliding_window": 5}, {"windows": [5] * 4}),
)
_SUMMARY = {
    "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
    "summary_type": "cls_index", "summary_use_proj": True,
}  # fmt: skip
_DOUBLED = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}


def _longrope(original: int, length: int) -> dict[str, Any]:
    """What follows of those factors: the factor on cos and sin is of the ratio of the lengths."""
    factor = math.sqrt(1 + math.log(length / original) / math.log(original))
    numbers = {"original_max_position_embeddings": original, "attention_factor": factor}
    return {"rope_scaling": {"rope_type": "longrope", **_DOUBLED, **numbers}}


FAMILIES: dict[str, Family] = {
    "bloom": Family(
        "BloomConfig",
        {"hidden_size": 48, "n_head": 6, "n_layer": 4, "vocab_size": 113},
        {**_LN, "default_prepend_bos": False, "positional_embedding_type": "alibi", "post_embedding_ln": True},
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
        "CohereConfig", _SIZES, {**_LN, "gated_mlp": True, "parallel_attn_mlp": True, "norm_bias": False},
        beside={"rope_theta": 10000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
        means=(*_UNGROUPED, ({"use_qk_norm": True}, {"use_qk_norm": True, "qk_norm_kind": "LN by head"})),
        refuses=(({"rope_theta": ..., "rope_parameters": ...}, "UnhandledConfigError", "rope_theta"),),
    ),
    "cohere2": Family(
        "Cohere2Config", _WITH_HEADS, {**_LN, "gated_mlp": True, "parallel_attn_mlp": True, "norm_bias": False},
        means=(
            ({"sliding_window": 5}, {"windows": [5, 5, 5, None], "rotary_layers": [True, True, True, False]}),
            ({"sliding_window": 5, "sliding_window_pattern": 2}, {"windows": [5, None, 5, None]}),
        ),
    ),
    "gemma": Family(
        "GemmaConfig", _WITH_HEADS, {**_RMS, "norm_weight_offset": 1.0},
        means=(
            *_GROUPED,
            ({"hidden_act": "gelu"}, {"act_fn": "gelu_pytorch_tanh"}),
            ({"hidden_act": "gelu", "hidden_activation": "relu"}, {"act_fn": "relu"}),
            ({"hidden_act": "silu"}, {"act_fn": "silu"}),
        ),
        by_hand="llama_like",
    ),
    "gemma2": Family(
        "Gemma2Config", _WITH_HEADS, {**_RMS, "norm_weight_offset": 1.0, "use_normalization_before_and_after": True},
        means=(
            *_GROUPED,
            ({"sliding_window": 5}, {"windows": [5, None, 5, None]}),
            ({"attn_logit_softcapping": None}, {"output_logits_soft_cap": 30.0}),
            ({"final_logit_softcapping": 7.0}, {"attn_scores_soft_cap": 50.0, "output_logits_soft_cap": 7.0}),
        ),
    ),
    "gemma3": Family(
        "Gemma3Config", _WITH_HEADS, {**_RMS, "norm_weight_offset": 1.0, "use_normalization_before_and_after": True},
        means=(({"sliding_window": 5, "sliding_window_pattern": 2}, {"windows": [5, None, 5, None]}),),
    ),
    "gemma3_text": Family(
        "Gemma3TextConfig", _WITH_HEADS,
        {**_RMS, "norm_weight_offset": 1.0, "use_normalization_before_and_after": True},
        means=(
            ({"sliding_window": 5, "sliding_window_pattern": 2}, {"windows": [5, None, 5, None]}),
            ({"rope_theta": 7e5, "rope_local_base_freq": 900.0}, {"rotary_base": 700000, "rotary_base_local": 900}),
        ),
    ),
    "gpt2": Family(
        "GPT2Config",
        {"n_embd": 48, "n_head": 6, "n_layer": 4, "vocab_size": 113, "n_positions": 64},
        {**_LN, "positional_embedding_type": "standard"},
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
                       **_SUMMARY, "task_specific_params": {"text-generation": {"max_length": 50}}},
            "distilled": {"_num_labels": 1, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}},
        },
        by_hand="gpt2",
    ),
    "gpt_neo": Family(
        "GPTNeoConfig",
        {"hidden_size": 48, "num_heads": 6, "num_layers": 4, "vocab_size": 113, "max_position_embeddings": 64},
        {**_LN, "positional_embedding_type": "standard"},
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
        {name: value for name, value in _SIZES.items() if name != "num_key_value_heads"},
        {**_LN, "parallel_attn_mlp": True},
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
        "GptOssConfig", {**_WITH_HEADS, **_EXPERTS}, {**_RMS, "use_attention_sinks": True},
        beside={"rope_parameters": {"rope_type": "default", "rope_theta": 150000.0}},
        means=(({"sliding_window": 5}, {"windows": [5, None, 5, None]}),),
        refuses=(({"rope_parameters": ...}, "UnhandledConfigError", "rope_parameters is not there"),),
    ),
    "gptj": Family(
        "GPTJConfig",
        {"n_embd": 48, "n_head": 6, "n_layer": 4, "vocab_size": 113, "n_positions": 64},
        {**_LN, "parallel_attn_mlp": True, "rotary_adjacent_pairs": True},
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
        "GraniteConfig", _SIZES, _RMS,
        means=(
            *_UNGROUPED,
            ({"attention_multiplier": 0.5}, {"attn_scale": 2.0}),
            ({"logits_scaling": 4.0}, {"logit_multiplier": 0.25}),
        ),
        refuses=(({"logits_scaling": 0.0}, "CorruptCheckpointError", "not above 0"),),
        by_hand="llama_like",
    ),
    "llama": Family(
        "LlamaConfig", _SIZES, _RMS,
        means=(
            *_UNGROUPED,
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
        "MistralConfig", _SIZES, _RMS,
        means=(
            *_GROUPED,
            *_EVERY_WINDOW,
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
        "MixtralConfig", {**_SIZES, **_EXPERTS}, _RMS, means=(*_GROUPED, *_EVERY_WINDOW, ({}, {"windows": [None] * 4}))
    ),
    "olmo": Family(
        "OlmoConfig", _SIZES, {**_LN, "gated_mlp": True, "norm_weight": False},
        means=(*_UNGROUPED, ({"clip_qkv": None}, {"clip_qkv": None}), ({"clip_qkv": 8.0}, {"clip_qkv": 8.0})),
        refuses=(({"clip_qkv": 0.0}, "CorruptCheckpointError", "not above 0"),),
    ),
    "olmo2": Family("Olmo2Config", _SIZES, {**_RMS, "norm_placement": "output"}, means=_UNGROUPED),
    "olmo3": Family(
        "Olmo3Config", _SIZES, {**_RMS, "norm_placement": "output"},
        means=(
            ({"sliding_window": 5}, {"windows": [5, 5, 5, None]}),
            ({"rope_theta": 5e5}, {"rotary_base": 500000, "rotary_base_local": 500000}),
        ),
        refuses=(({"rope_theta": 7e5}, "UnhandledConfigError", "releases of transformers differ"),),
    ),
    "olmoe": Family("OlmoeConfig", {**_SIZES, "num_experts": 5, "num_experts_per_tok": 2}, _RMS),
    "opt": Family(
        "OPTConfig",
        {"hidden_size": 48, "num_attention_heads": 6, "ffn_dim": 80, "num_hidden_layers": 4, "vocab_size": 113,
         "max_position_embeddings": 64},
        {**_LN, "positional_embedding_type": "standard"},
        means=(
            ({"do_layer_norm_before": False}, {"norm_placement": "post", "has_final_norm": False}),
            ({"_remove_final_layer_norm": True}, {"has_final_norm": False}),
            ({"layer_norm_elementwise_affine": False}, {"norm_weight": False}),
        ),
    ),
    "phi": Family("PhiConfig", _SIZES, {**_LN, "parallel_attn_mlp": True}, means=_UNGROUPED),
    "phi3": Family(
        "Phi3Config", _SIZES, _RMS,
        means=(
            ({"num_key_value_heads": None}, {"n_key_value_heads": None}),
            ({"num_key_value_heads": ...}, {"n_key_value_heads": None}),
            *_EVERY_WINDOW,
            ({}, {"windows": [None] * 4}),
            # One rotation goes by three names.
            *(({"original_max_position_embeddings": 16, "rope_scaling": {"type": kind, **_DOUBLED}}, _longrope(16, 64))
              for kind in ("su", "yarn", "longrope")),
            # The length beside the dict goes before the one inside, in both generations; 4096 is the class's default.
            ({"rope_scaling": {"type": "su", **_DOUBLED, "original_max_position_embeddings": 8}}, _longrope(8, 64)),
            ({"original_max_position_embeddings": 16,
              "rope_scaling": {"type": "su", **_DOUBLED, "original_max_position_embeddings": 8}}, _longrope(16, 64)),
            ({"max_position_embeddings": 131072, "rope_scaling": {"type": "su", **_DOUBLED}}, _longrope(4096, 131072)),
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
        "Qwen2Config", _SIZES, {**_RMS, "default_prepend_bos": False},
        means=(
            *_GROUPED,
            *_QWEN_WINDOWS,
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
        {**_SIZES, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 20,
         "shared_expert_intermediate_size": 28},
        {**_RMS, "default_prepend_bos": False},
        means=(*_GROUPED, *_QWEN_WINDOWS),
    ),
    "qwen3": Family(
        "Qwen3Config", _WITH_HEADS, {**_RMS, "default_prepend_bos": False, "use_qk_norm": True},
        means=(*_UNGROUPED, *_QWEN_WINDOWS), by_hand="llama_like",
    ),
    "qwen3_moe": Family(
        "Qwen3MoeConfig",
        {**_WITH_HEADS, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 20},
        {**_RMS, "default_prepend_bos": False, "use_qk_norm": True},
        means=(
            ({"sliding_window": 5}, {"windows": [None] * 4}),
            ({"sliding_window": 5, "use_sliding_window": True}, {"windows": [5] * 4}),
            ({"mlp_only_layers": [1]}, {"expert_layers": [True, False, True, True]}),
            ({"decoder_sparse_step": 2}, {"expert_layers": [False, True, False, True]}),
        ),
        refuses=(({"mlp_only_layers": 1}, "CorruptCheckpointError", "not a list"),),
    ),
    "smollm3": Family(
        "SmolLM3Config", _SIZES, _RMS,
        means=(
            *_UNGROUPED,
            ({}, {"rotary_layers": [True, True, True, False], "windows": [None] * 4}),
            ({"no_rope_layers": [0, 1, 1, 1]}, {"rotary_layers": [False, True, True, True]}),
            ({"no_rope_layers": [0, 1, 1, 1], "use_sliding_window": True, "sliding_window": 5},
             {"windows": [5, None, None, None]}),
        ),
        refuses=(({"no_rope_layers": [1, 1]}, "CorruptCheckpointError", "not a list of 4"),),
        by_hand="llama_like",
    ),
    "stablelm": Family(
        "StableLmConfig", _SIZES, {**_LN, "gated_mlp": True},
        means=(({"qk_layernorm": True}, {"use_qk_norm": True, "qk_norm_kind": "LN by head"}),),
    ),
    "starcoder2": Family(
        "Starcoder2Config", _SIZES, _LN, means=(*_UNGROUPED, *_EVERY_WINDOW, ({}, {"windows": [None] * 4}))
    ),
}  # fmt: skip


def family_of(variant: Variant) -> str:
    """Returns the ``model_type`` of a variant's family."""
    return next(name for name, family in FAMILIES.items() if family.config_class == variant.config_class)


def first_of(family: str) -> str:
    """Returns the name of a family's plainest variant: the first."""
    return next(name for name, variant in VARIANTS.items() if family_of(variant) == family)


def parameters_in_order(model: Any) -> list[tuple[str, torch.nn.Parameter]]:
    """Returns the parameters sorted by name; where transformers 5 renamed one, by its newer name."""
    return sorted(model.named_parameters(), key=lambda item: item[0].replace("embed_out.", "lm_head."))


def make_model(variant: Variant, dtype: torch.dtype = torch.float32, std: float = 0.25) -> Any:
    """Makes the model in eval mode, with every parameter drawn from N(0, std^2); norm weights lie around 1.

    The draw goes by sorted names, so that it is the same under every release of transformers.
    """
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(variant.config(), attn_implementation="eager").eval().to(torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in parameters_in_order(model):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
            if parameter.ndim == 1 and name.endswith("weight"):
                parameter.add_(variant.norm_weights)
    return model.to(dtype)


def save(variant: Variant, folder: Path, dtype: torch.dtype = torch.float32, std: float = 0.25) -> Path:
    """Writes the model that `make_model` makes as a safetensors checkpoint without tokenizer."""
    make_model(variant, dtype, std).save_pretrained(folder, safe_serialization=True)
    return folder
