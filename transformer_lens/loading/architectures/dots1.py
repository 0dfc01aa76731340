"""dots.llm1: Qwen 3 with GLM's mixtures."""

from typing import Any

from transformer_lens.loading.architectures import llama_like, mixtures
from transformer_lens.loading.architectures.glm4_moe import CORRECTED, DEEPSEEK_FIELDS, DEEPSEEK_VALUES
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import When

_DEFAULTS = {
    "hidden_size": 4608,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "intermediate_size": 10944,
    "num_hidden_layers": 62,
    "max_position_embeddings": 2048,
    "vocab_size": 152064,
}


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.read_sizes(config, _DEFAULTS)
    config.flag("attention_bias", False)
    d_expert, n_layers = config.size("moe_intermediate_size", 1408), fields["n_layers"]
    window = config.window("sliding_window", 4096)
    first = config.check_size("max_window_layers", config.take("max_window_layers", 62), 100_000, smallest=0)
    layer_types = config.layer_types(n_layers)
    if layer_types is None:
        layer_types = ["sliding_attention" if layer >= first else "full_attention" for layer in range(n_layers)]
    return {
        **fields,
        "default_prepend_bos": False,
        "use_qk_norm": True,
        "d_expert": d_expert,
        "norm_topk_prob": config.flag("norm_topk_prob", False),
        **mixtures.read_sigmoid(config, None, None),
        **mixtures.read_shared(config, "n_shared_experts", None, d_expert),
        **mixtures.sparse_from(config, "first_k_dense_replace", 0, n_layers),
        **llama_like.window(window, layer_types),
        **config.rotary(fields["d_head"], fields["n_ctx"]),
    }


DOTS1 = Architecture(
    name="Dots1ForCausalLM",
    model_type="dots1",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block={
        **llama_like.BLOCK,
        **llama_like.QUERY_KEY_NORMS,
        **llama_like.attention_biases(When("attention_bias", False)),
        **CORRECTED,
    },
    dropped=llama_like.DROPPED,
    read_config=_read,
    ignored={**mixtures.IGNORED, **DEEPSEEK_FIELDS},
    required={**llama_like.REQUIRED, **DEEPSEEK_VALUES, "mlp_bias": False},
)
