"""GLM 4.5's and 4.6's mixtures: sigmoid routers with a correction, after a few layers that are dense."""

from typing import Any

from transformer_lens.loading.architectures import llama_like, mixtures
from transformer_lens.loading.architectures.qwen3_moe import MIXTURE
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Recipe, Take, When

_DEFAULTS = {
    "hidden_size": 4096,
    "num_attention_heads": 96,
    "num_key_value_heads": 8,
    "intermediate_size": 10944,
    "num_hidden_layers": 46,
    "max_position_embeddings": 131072,
    "vocab_size": 151552,
}

# Of every family with such routers: GLM, dots, Solar.
CORRECTED: dict[str, Recipe] = {
    **MIXTURE,
    "mlp.e_score_correction_bias": Take("{p}layers.{i}.mlp.gate.e_score_correction_bias", "expert"),
    **mixtures.shared_expert("{p}layers.{i}.mlp.shared_experts"),
}
DEEPSEEK_FIELDS = {
    "aux_loss_alpha": "of the loss in training",
    "seq_aux": "of the loss in training",
    "ep_size": "how training spread experts",
}
DEEPSEEK_VALUES: dict[str, Any] = {"moe_layer_freq": 1}


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.read_sizes(config, _DEFAULTS, eps=1e-5)
    config.flag("attention_bias", False)
    d_expert = config.size("moe_intermediate_size", 1408)
    return {
        **fields,
        "default_prepend_bos": False,
        "use_qk_norm": config.flag("use_qk_norm", False),
        "d_expert": d_expert,
        "norm_topk_prob": config.flag("norm_topk_prob", True),
        **mixtures.read_sigmoid(config, 128, 8),
        **mixtures.read_shared(config, "n_shared_experts", 1, d_expert),
        **mixtures.sparse_from(config, "first_k_dense_replace", 1, fields["n_layers"]),
        **config.rotary(fields["d_head"], fields["n_ctx"], default_fraction=0.5),
    }


GLM4_MOE = Architecture(
    name="Glm4MoeForCausalLM",
    model_type="glm4_moe",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block={
        **llama_like.BLOCK,
        **llama_like.QUERY_KEY_NORMS,
        **llama_like.attention_biases(When("attention_bias", False), output=False),
        **CORRECTED,
    },
    dropped=llama_like.DROPPED,
    read_config=_read,
    ahead=mixtures.AHEAD,
    ignored={**mixtures.IGNORED, **mixtures.IGNORED_AHEAD, **DEEPSEEK_FIELDS},
    required={**llama_like.REQUIRED, **DEEPSEEK_VALUES, "mlp_bias": False},
)
