"""OLMo 3: OLMo 2 with a window on three layers of four; rotation is scaled on the others only."""

from typing import Any

from transformer_lens.loading.architectures import llama_like, olmo2
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.rotary import read_rotary_by_layer_type


def _read(config: ConfigView) -> dict[str, Any]:
    fields = olmo2.read_sizes(config)
    layer_types = config.layer_types(fields["n_layers"])
    if layer_types is None:
        layer_types = llama_like.every_nth_is_full(fields["n_layers"], 4)
    return {
        **fields,
        **llama_like.window(config.window("sliding_window", 4096), layer_types),
        **read_rotary_by_layer_type(config, fields["d_head"], fields["n_ctx"], 500_000.0, 500_000.0, None),
    }


OLMO3 = Architecture(
    name="Olmo3ForCausalLM",
    model_type="olmo3",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block=olmo2.BLOCK,
    dropped=llama_like.DROPPED,
    read_config=_read,
    required={**llama_like.REQUIRED, "mlp_bias": False},
)
