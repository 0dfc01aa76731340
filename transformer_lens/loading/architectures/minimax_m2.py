"""MiniMax M2: norms over all heads of queries and of keys, partial rotation, sigmoid routers with a correction."""

from typing import Any

from transformer_lens.loading.architectures import llama_like, mixtures
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Recipe, Take

_DEFAULTS = {
    "hidden_size": 3072,
    "num_attention_heads": 48,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 1536,
    "num_hidden_layers": 62,
    "max_position_embeddings": 196608,
    "vocab_size": 200064,
}


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.read_sizes(config, _DEFAULTS)
    turning = config.size_or_none("rotary_dim", None)
    kinds = config.numbers_by_layer("attn_type_list", fields["n_layers"])
    if kinds is not None and set(kinds) != {1}:
        config.problems.append(f"attn_type_list = {kinds}: only 1, softmax attention, is implemented")
    return {
        **fields,
        "use_qk_norm": True,
        "qk_norm_kind": "RMS over heads",
        "num_experts": config.size(config.spelling("num_local_experts", "num_experts"), 256),
        "experts_per_token": config.size("num_experts_per_tok", 8),
        "norm_topk_prob": True,
        "router_scores": "sigmoid",
        "router_correction": True,
        **config.rotary(
            fields["d_head"],
            fields["n_ctx"],
            5_000_000.0,
            default_fraction=1.0 if turning is None else turning / fields["d_head"],
        ),
    }


_MOE = ("{p}layers.{i}.block_sparse_moe", "{p}layers.{i}.mlp")
_MLP: dict[str, Recipe] = {
    "mlp.W_gate.weight": Take(tuple(f"{where}.gate.weight" for where in _MOE), "expert d_model"),
    "mlp.e_score_correction_bias": Take(tuple(f"{where}.e_score_correction_bias" for where in _MOE), "expert"),
    **mixtures.experts(f"{_MOE[0]}.experts.{{e}}", {"W_gate": "w1", "W_in": "w3", "W_out": "w2"}, f"{_MOE[1]}.experts"),
}

MINIMAX_M2 = Architecture(
    name="MiniMaxM2ForCausalLM",
    model_type="minimax_m2",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block={
        **{name: recipe for name, recipe in llama_like.BLOCK.items() if not name.startswith("mlp.")},
        "attn.q_norm.w": Take("{p}layers.{i}.self_attn.q_norm.weight", "d_heads"),
        "attn.k_norm.w": Take("{p}layers.{i}.self_attn.k_norm.weight", "d_kv_heads"),
        **_MLP,
    },
    dropped=llama_like.DROPPED,
    read_config=_read,
    ignored={
        **mixtures.IGNORED,
        "router_jitter_noise": "noise in training",
        "num_mtp_modules": "layers that predict tokens further ahead, which files of the class do not hold",
        "mtp_transformer_layers": "layers that predict tokens further ahead, which files of the class do not hold",
        "use_mtp": "layers that predict tokens further ahead, which files of the class do not hold",
    },
    required={
        **llama_like.REQUIRED,
        **llama_like.UNBIASED,
        "use_qk_norm": True,
        "use_routing_bias": True,
        "qk_norm_type": "per_layer",
        "scoring_func": "sigmoid",
        "shared_intermediate_size": 0,
    },
)
