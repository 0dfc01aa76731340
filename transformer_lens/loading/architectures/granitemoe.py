"""Granite's mixtures: Granite whose MLPs are mixtures, their experts fused in the file."""

from typing import Any

from transformer_lens.loading.architectures import granite, llama_like, mixtures
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Recipe, Take, When

_DEFAULTS = {
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "max_position_embeddings": 2048,
    "vocab_size": 32000,
}
_WHERE = "{p}layers.{i}.block_sparse_moe"


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.ungroup_if_equal(llama_like.read_sizes(config, _DEFAULTS))
    config.flag("attention_bias", False)
    shared = config.take("shared_intermediate_size", 0)
    return {
        **fields,
        **granite.read_multipliers(config),
        "num_experts": config.size("num_local_experts", 8),
        "experts_per_token": config.size("num_experts_per_tok", 2),
        # A softmax over the chosen logits.
        "norm_topk_prob": True,
        # 0 means that there is none.
        "d_shared_expert": config.check_size("shared_intermediate_size", shared, 10_000_000, smallest=0) or None,
        **config.rotary(fields["d_head"], fields["n_ctx"]),
    }


def _expert(ours: str, keys: tuple[str, str], layout: str, pick: dict[str, int | str]) -> dict[str, Recipe]:
    return {f"mlp.experts.{{e}}.{ours}.weight": Take(keys, layout, pick={"expert": "{e}", **pick})}


_GATE_UP = (f"{_WHERE}.input_linear.weight", f"{_WHERE}.experts.gate_up_proj")
_DOWN = (f"{_WHERE}.output_linear.weight", f"{_WHERE}.experts.down_proj")
_SHARED = "{p}layers.{i}.shared_mlp.input_linear.weight"
BLOCK: dict[str, Recipe] = {
    **{name: recipe for name, recipe in llama_like.BLOCK.items() if not name.startswith("mlp.")},
    **llama_like.attention_biases(When("attention_bias", False)),
    "mlp.W_gate.weight": Take((f"{_WHERE}.router.layer.weight", f"{_WHERE}.router.weight"), "expert d_model"),
    **_expert("W_gate", _GATE_UP, "expert (gate_up d_expert) d_model", {"gate_up": 0}),
    **_expert("W_in", _GATE_UP, "expert (gate_up d_expert) d_model", {"gate_up": 1}),
    **_expert("W_out", _DOWN, "expert d_model d_expert", {}),
    "mlp.shared_expert.W_gate.weight": Take(_SHARED, "(gate_up d_shared) d_model", pick={"gate_up": 0}),
    "mlp.shared_expert.W_in.weight": Take(_SHARED, "(gate_up d_shared) d_model", pick={"gate_up": 1}),
    "mlp.shared_expert.W_out.weight": Take("{p}layers.{i}.shared_mlp.output_linear.weight", "d_model d_shared"),
}

# What files of transformers 4 say of both classes.
ROTARY = {"position_embedding_type": "rope"}

GRANITE_MOE = Architecture(
    name="GraniteMoeForCausalLM",
    model_type="granitemoe",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block=BLOCK,
    dropped=llama_like.DROPPED,
    read_config=_read,
    ignored=mixtures.IGNORED,
    required={**llama_like.REQUIRED, **ROTARY, "mlp_bias": False, "shared_intermediate_size": 0},
)
