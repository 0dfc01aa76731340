"""Qwen 3's mixtures: Qwen 3 whose MLPs are mixtures of experts in most layers."""

from typing import Any

from transformer_lens.loading.architectures import llama_like, mixtures
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Recipe, Take, When

_DEFAULTS = {
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "intermediate_size": 6144,
    "num_hidden_layers": 24,
    "max_position_embeddings": 32768,
    "vocab_size": 151936,
}
# Of files and live models alike; layers with one MLP have Llama's names.
MIXTURE: dict[str, Recipe] = {
    "mlp.W_gate.weight": Take("{p}layers.{i}.mlp.gate.weight", "expert d_model"),
    **mixtures.experts(
        "{p}layers.{i}.mlp.experts.{e}",
        {"W_gate": "gate_proj", "W_in": "up_proj", "W_out": "down_proj"},
        "{p}layers.{i}.mlp.experts",
    ),
}


def read_mixture(config: ConfigView, n_layers: int, n_experts: int, n_chosen: int, d_expert: int) -> dict[str, Any]:
    """Returns the fields of a mixture; the numbers are defaults."""
    step = config.size("decoder_sparse_step", 1, "layers")
    dense = config.take("mlp_only_layers", [])
    if not isinstance(dense, (list, tuple)):
        raise config.corrupt(f"mlp_only_layers = {str(dense)[:60]} is not a list of layers")
    for place, layer in enumerate(dense):
        config.check_size(f"mlp_only_layers[{place}]", layer, 100_000, smallest=0)
    sparse = [layer not in dense and (layer + 1) % step == 0 for layer in range(n_layers)]
    return {
        "num_experts": config.size(config.spelling("num_experts", "num_local_experts"), n_experts),
        "experts_per_token": config.size("num_experts_per_tok", n_chosen),
        "norm_topk_prob": config.flag("norm_topk_prob", False),
        "d_expert": config.size("moe_intermediate_size", d_expert),
        "expert_layers": sparse,
    }


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.read_sizes(config, _DEFAULTS)
    config.flag("attention_bias", False)
    # Of this class a window is on every layer.
    windowed, size = config.flag("use_sliding_window", False), config.window("sliding_window", 4096)
    return {
        **fields,
        "use_qk_norm": True,
        "default_prepend_bos": False,
        **read_mixture(config, fields["n_layers"], 128, 8, 768),
        **llama_like.window(size if windowed else None, ["sliding_attention"] * fields["n_layers"]),
        **config.rotary(fields["d_head"], fields["n_ctx"]),
    }


QWEN3_MOE = Architecture(
    name="Qwen3MoeForCausalLM",
    model_type="qwen3_moe",
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
        "router_aux_loss_coef": "of the loss in training",
        "output_router_logits": "what transformers returns",
        "max_window_layers": "transformers does not read it in this class",
    },
    required={**llama_like.REQUIRED, "mlp_bias": False},
)
