"""FlexOlmo: OLMo 2 whose MLPs are mixtures."""

from typing import Any

from transformer_lens.loading.architectures import llama_like, mixtures
from transformer_lens.loading.architectures.olmo2 import BLOCK
from transformer_lens.loading.architectures.qwen3_moe import MIXTURE
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Recipe

_DEFAULTS = {
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "max_position_embeddings": 4096,
    "vocab_size": 100352,
}


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.ungroup_if_equal(llama_like.read_sizes(config, _DEFAULTS))
    config.flag("attention_bias", False)
    return {
        **fields,
        "norm_placement": "output",
        "norm_casts_late": True,
        "use_qk_norm": True,
        "qk_norm_kind": "RMS over heads",
        "num_experts": config.size(config.spelling("num_experts", "num_local_experts"), 7),
        "experts_per_token": config.size("num_experts_per_tok", 5),
        "norm_topk_prob": config.flag("norm_topk_prob", False),
        **config.rotary(fields["d_head"], fields["n_ctx"], 500_000.0),
    }


_DENSE: dict[str, Recipe] = {name: recipe for name, recipe in BLOCK.items() if not name.startswith("mlp.")}

FLEX_OLMO = Architecture(
    name="FlexOlmoForCausalLM",
    model_type="flex_olmo",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block={**_DENSE, **MIXTURE},
    dropped=llama_like.DROPPED,
    read_config=_read,
    ignored=mixtures.IGNORED,
    required={**llama_like.REQUIRED, "mlp_bias": False},
)
