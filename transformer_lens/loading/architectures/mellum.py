"""Mellum: Qwen 3's mixtures, with windows, and a rotary base for each type of layer."""

from typing import Any

from transformer_lens.loading.architectures import llama_like, mixtures
from transformer_lens.loading.architectures.qwen3_moe import MIXTURE
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import When
from transformer_lens.loading.conversion.rotary import read_rotary_by_layer_type

_DEFAULTS = {
    "hidden_size": 2304,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "intermediate_size": 7168,
    "num_hidden_layers": 28,
    "max_position_embeddings": 131072,
    "vocab_size": 98304,
}


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.read_sizes(config, _DEFAULTS)
    config.flag("attention_bias", False)
    n_layers = fields["n_layers"]
    layer_types = config.layer_types(n_layers) or ["full_attention"] * n_layers
    if config.mapping("rope_parameters"):
        rotary = read_rotary_by_layer_type(config, fields["d_head"], fields["n_ctx"], 500_000.0, 10_000.0, None)
    else:
        rotary = {**config.rotary(fields["d_head"], fields["n_ctx"], 500_000.0), "rotary_base_local": 10000}
    return {
        **fields,
        "use_qk_norm": True,
        "num_experts": config.size(config.spelling("num_local_experts", "num_experts"), 64),
        "experts_per_token": config.size("num_experts_per_tok", 8),
        "norm_topk_prob": config.flag("norm_topk_prob", True),
        "d_expert": config.size("moe_intermediate_size", 896),
        **mixtures.sparse_by_type(config, n_layers, 0),
        **llama_like.window(config.window("sliding_window", 1024), layer_types),
        **rotary,
    }


MELLUM = Architecture(
    name="MellumForCausalLM",
    model_type="mellum",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block={
        **llama_like.BLOCK,
        **llama_like.QUERY_KEY_NORMS,
        **llama_like.attention_biases(When("attention_bias", False)),
        **MIXTURE,
    },
    dropped=llama_like.DROPPED,
    read_config=_read,
    ignored={
        **mixtures.IGNORED,
        **mixtures.IGNORED_AHEAD,
        "mtp_layer_types": "of layers that predict tokens further ahead",
        "mtp_mlp_layer_types": "of layers that predict tokens further ahead",
    },
    required={**llama_like.REQUIRED, "mlp_bias": False},
    dropped_parts={"mtp.": "layers that predict tokens further ahead"},
)
