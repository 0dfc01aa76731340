"""Solar Open: Llama with GLM's mixtures in every layer."""

from typing import Any

from transformer_lens.loading.architectures import llama_like, mixtures
from transformer_lens.loading.architectures.glm4_moe import CORRECTED, DEEPSEEK_FIELDS, DEEPSEEK_VALUES
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import When

_DEFAULTS = {
    "hidden_size": 4096,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "num_hidden_layers": 48,
    "max_position_embeddings": 131072,
    "vocab_size": 196608,
}


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.read_sizes(config, _DEFAULTS, eps=1e-5)
    config.flag("attention_bias", False)
    d_expert = config.size("moe_intermediate_size", 1280)
    return {
        **fields,
        "d_expert": d_expert,
        "norm_topk_prob": config.flag("norm_topk_prob", True),
        **mixtures.read_sigmoid(config, 128, 8),
        **mixtures.read_shared(config, "n_shared_experts", 1, d_expert),
        **config.rotary(fields["d_head"], fields["n_ctx"], 1_000_000.0),
    }


SOLAR_OPEN = Architecture(
    name="SolarOpenForCausalLM",
    model_type="solar_open",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block={
        **{name: recipe for name, recipe in llama_like.BLOCK.items() if not name.startswith("mlp.")},
        **llama_like.attention_biases(When("attention_bias", False), output=False),
        **CORRECTED,
    },
    dropped=llama_like.DROPPED,
    read_config=_read,
    ignored={
        **mixtures.IGNORED,
        **DEEPSEEK_FIELDS,
        "intermediate_size": "of dense layers, which the class does not have",
    },
    required={
        **llama_like.REQUIRED,
        **DEEPSEEK_VALUES,
        "mlp_bias": False,
        "first_k_dense_replace": 0,
        "use_qk_norm": False,
    },
)
