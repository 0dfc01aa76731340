"""Tiny random models of every architecture and variant, made on the spot."""

from __future__ import annotations

from dataclasses import dataclass
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

    def why_no_reference(self) -> str | None:
        """Says why the installed transformers cannot be compared with; None where it can."""
        import transformers

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
    rope = out.get("rope_parameters")
    if rope is not None and int(transformers.__version__.split(".")[0]) < 5:
        rope = dict(out.pop("rope_parameters"))
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
    "gemma": Variant("GemmaConfig", _GEMMA, norm_weights=0.0),
    "gemma-square": Variant(
        "GemmaConfig", {**_GEMMA, "num_key_value_heads": 1, "intermediate_size": 48, "vocab_size": 48}, norm_weights=0.0
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
        {**_GEMMA_2, "num_hidden_layers": 7, **_two_ropes(100000.0, 500.0, rope_type="linear", factor=4.0)},
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
    "olmo-gqa-clip": Variant("OlmoConfig", {**_LLAMA, "clip_qkv": 0.8, "tie_word_embeddings": True}),
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
    ),
    "stablelm-square": Variant("StableLmConfig", {**_SQUARE, **_rope("default", partial_rotary_factor=0.5)}),
    "starcoder2": Variant("Starcoder2Config", {**_LLAMA, "sliding_window": 5}),
    "starcoder2-unbiased": Variant("Starcoder2Config", {**_LLAMA, "use_bias": False, "tie_word_embeddings": False}),
    "starcoder2-square": Variant("Starcoder2Config", _SQUARE),
}


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
    "olmoe": Variant("OlmoeConfig", {**_LLAMA, "num_experts_per_tok": 2, "num_experts": 5}),
    "olmoe-clip": Variant(
        "OlmoeConfig",
        {**_MHA, "num_experts_per_tok": 3, "num_experts": 6, "clip_qkv": 0.8, "norm_topk_prob": True},
    ),
    "gpt-oss": Variant("GptOssConfig", {**_MIXTURE, "head_dim": 10, "sliding_window": 5, **_rope("default", 150000.0)}),
    "gpt-oss-square": Variant(
        "GptOssConfig", {**_MIXTURE, "head_dim": 8, "intermediate_size": 48, "vocab_size": 48, **_rope("default")}
    ),
}


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
