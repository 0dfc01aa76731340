"""Ernie 4.5's mixtures: softmax routers with a correction; adjacent dimensions rotate."""

from typing import Any

from transformer_lens.loading.architectures import llama_like, mixtures
from transformer_lens.loading.architectures.qwen3_moe import MIXTURE
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Take

_DEFAULTS = {
    "hidden_size": 2560,
    "num_attention_heads": 20,
    "num_key_value_heads": 4,
    "intermediate_size": 12288,
    "num_hidden_layers": 28,
    "max_position_embeddings": 131072,
    "vocab_size": 103424,
}


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.read_sizes(config, _DEFAULTS, eps=1e-5)
    d_expert, n_layers = config.size("moe_intermediate_size", 1536), fields["n_layers"]
    first, last, step = (config.take(f"moe_layer_{name}", default) for name, default in _LAYERS.items())
    config.check_size("moe_layer_start_index", first, 100_000, smallest=0)
    config.check_size("moe_layer_end_index", last, 100_000, smallest=-1)
    config.check_size("moe_layer_interval", step, 100_000)
    last = n_layers - 1 if last == -1 else last
    return {
        **fields,
        "rotary_adjacent_pairs": True,
        "num_experts": config.size(config.spelling("moe_num_experts", "num_experts"), 64),
        "experts_per_token": config.size(config.spelling("moe_k", "num_experts_per_tok"), 6),
        "d_expert": d_expert,
        "expert_layers": [first <= layer <= last and (layer + 1) % step == 0 for layer in range(n_layers)],
        "norm_topk_prob": True,
        "router_correction": True,
        "router_is_precise": True,
        "router_floor": config.number("moe_norm_min", 1e-12, above=0),
        **mixtures.read_shared(config, "moe_num_shared_experts", 2, d_expert),
        **config.rotary(fields["d_head"], fields["n_ctx"], 500_000.0),
    }


_LAYERS = {"start_index": 1, "end_index": -1, "interval": 1}
_STATICS = ("{p}layers.{i}.mlp.moe_statics", "{p}layers.{i}.mlp.gate.moe_statics")

ERNIE4_5_MOE = Architecture(
    name="Ernie4_5_MoeForCausalLM",
    model_type="ernie4_5_moe",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block={
        **llama_like.BLOCK,
        **MIXTURE,
        "mlp.e_score_correction_bias": Take(
            tuple(f"{where}.e_score_correction_bias" for where in _STATICS), "one expert", pick={"one": 0}
        ),
        **mixtures.shared_expert("{p}layers.{i}.mlp.shared_experts"),
    },
    dropped=llama_like.DROPPED,
    read_config=_read,
    ignored={**mixtures.IGNORED, "moe_capacity": "how many tokens an expert takes in training"},
    required={**llama_like.REQUIRED, "use_bias": False, "moe_use_aux_free": True},
    ties_by_default=True,
)
