"""Phi 3.5's mixtures: two experts a token by sparsemixer, layer norms, biases of attention and of the logits."""

from typing import Any

from transformer_lens.loading.architectures import llama_like, mixtures
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Recipe, Take, When, Zeros

_DEFAULTS = {
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 6400,
    "num_hidden_layers": 32,
    "max_position_embeddings": 131072,
    "vocab_size": 32064,
}


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.read_sizes(config, _DEFAULTS, eps=1e-5)
    config.flag("attention_bias", False)
    config.flag("lm_head_bias", False)
    return {
        **fields,
        "normalization_type": "LN",
        "num_experts": config.size("num_local_experts", 16),
        "experts_per_token": 2,
        "router_scores": "sparsemixer",
        "router_jitter": config.number("router_jitter_noise", 0.01),
        **llama_like.window(config.window("sliding_window", None), ["sliding_attention"] * fields["n_layers"]),
        **_rotary(config, fields["d_head"], fields["n_ctx"]),
    }


def _rotary(config: ConfigView, d_head: int, n_ctx: int) -> dict[str, Any]:
    """Returns how positions rotate; scaled ones say which factor cosines and sines have, short and long."""
    scaled = {**config.mapping("rope_scaling"), **config.mapping("rope_parameters")}
    factors = [scaled.get("short_mscale"), scaled.get("long_mscale")]
    if factors == [None, None]:
        return config.rotary(d_head, n_ctx, 1_000_000.0)
    if factors[0] != factors[1]:
        config.problems.append(f"short_mscale = {factors[0]!r} and long_mscale = {factors[1]!r} are not one factor")
    config.check_number("short_mscale", factors[0], above=0)
    plain = {name: value for name, value in scaled.items() if name not in ("short_mscale", "long_mscale")}
    beside = {name: config.take(name) for name in ("rope_theta", "original_max_position_embeddings")}
    said = {**beside, "rope_parameters": {**plain, "attention_factor": factors[0]}}
    inner = type(config)(said, config.label, config.said_by)
    fields = inner.rotary(d_head, n_ctx, 1_000_000.0)
    config.problems += inner.problems
    return fields


_MLP: dict[str, Recipe] = {
    "mlp.W_gate.weight": Take(
        ("{p}layers.{i}.block_sparse_moe.gate.weight", "{p}layers.{i}.mlp.router.weight"), "expert d_model"
    ),
    **mixtures.experts(
        "{p}layers.{i}.block_sparse_moe.experts.{e}",
        {"W_gate": "w1", "W_in": "w3", "W_out": "w2"},
        "{p}layers.{i}.mlp.experts",
    ),
    # What the norm's bias is folded into.
    "mlp.W_gate.bias": Zeros(),
    "mlp.experts.{e}.W_gate.bias": Zeros(),
    "mlp.experts.{e}.W_in.bias": Zeros(),
}

PHIMOE = Architecture(
    name="PhimoeForCausalLM",
    model_type="phimoe",
    aliases=("PhiMoEForCausalLM",),
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once={
        **llama_like.ONCE,
        "ln_final.b": Take("{p}norm.bias", "d_model"),
        "unembed.b_U": Take("lm_head.bias", "d_vocab_out", when=When("lm_head_bias", False)),
    },
    block={
        **{name: recipe for name, recipe in llama_like.BLOCK.items() if not name.startswith("mlp.")},
        "ln1.b": Take("{p}layers.{i}.input_layernorm.bias", "d_model"),
        "ln2.b": Take("{p}layers.{i}.post_attention_layernorm.bias", "d_model"),
        **llama_like.attention_biases(When("attention_bias", False)),
        **_MLP,
    },
    dropped=llama_like.DROPPED,
    read_config=_read,
    ignored={
        **mixtures.IGNORED,
        "input_jitter_noise": "noise in training",
    },
    required={**llama_like.REQUIRED, "mlp_bias": False, "num_experts_per_tok": 2},
)
