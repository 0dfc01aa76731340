"""Cohere 2: Cohere with a window on three layers of four, and no rotation on the others."""

from typing import Any

from transformer_lens.loading.architectures import cohere, llama_like
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView

_DEFAULTS = {
    "hidden_size": 8192,
    "num_attention_heads": 64,
    "head_dim": 128,
    "intermediate_size": 22528,
    "num_hidden_layers": 40,
    "max_position_embeddings": 8192,
    "vocab_size": 256000,
}


def _read(config: ConfigView) -> dict[str, Any]:
    fields = cohere.read_sizes(config, _DEFAULTS)
    pattern = config.size(config.spelling("sliding_window_pattern", "_sliding_window_pattern"), 4, "layers")
    layer_types = config.layer_types(fields["n_layers"])
    if layer_types is None:
        layer_types = llama_like.every_nth_is_full(fields["n_layers"], pattern)
    return {
        **fields,
        **llama_like.window(config.window("sliding_window", 4096), layer_types),
        "rotary_layers": [kind == "sliding_attention" for kind in layer_types],
        **config.rotary(fields["d_head"], fields["n_ctx"]),
    }


COHERE2 = Architecture(
    name="Cohere2ForCausalLM",
    model_type="cohere2",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block=cohere.BLOCK,
    dropped=llama_like.DROPPED,
    read_config=_read,
    ignored={
        "cache_implementation": "how transformers keeps keys and values",
        "order_of_interleaved_layers": "a leftover of training; layer_types or sliding_window_pattern says it",
        "position_embedding_type": "a leftover of training; positions rotate in every file of the class",
        "rotary_pct": "a leftover of training; transformers does not read it",
        "use_embedding_sharing": "another name of tie_word_embeddings; transformers does not read it",
        "use_gated_activation": "the MLP of the class is gated",
        "use_parallel_block": "branches of the class stand side by side",
        "use_parallel_embedding": "how training spread the table",
    },
    required={**cohere.REQUIRED, "mlp_bias": False, "use_qk_norm": False},
    ties_by_default=True,
)
