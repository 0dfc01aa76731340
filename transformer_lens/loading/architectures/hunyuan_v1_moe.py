"""Hunyuan's first mixtures: an expert for all tokens, and norms of rotated queries and keys."""

from typing import Any

from transformer_lens.loading.architectures import llama_like, mixtures
from transformer_lens.loading.architectures.qwen3_moe import MIXTURE
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Take, When

_DEFAULTS = {
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "max_position_embeddings": 2048,
    "vocab_size": 290943,
}


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.ungroup_if_equal(llama_like.read_sizes(config, _DEFAULTS, eps=1e-5))
    config.flag("attention_bias", False)
    n_layers, width = fields["n_layers"], fields["d_mlp"]
    _in_all_layers(config, "moe_intermediate_size", width, n_layers, only=width)
    _in_all_layers(config, "num_shared_expert", 1, n_layers, only=1)
    return {
        **fields,
        "use_qk_norm": True,
        "qk_norm_after_rotary": True,
        "num_experts": _in_all_layers(config, config.spelling("num_experts", "num_local_experts"), 1, n_layers),
        "experts_per_token": _in_all_layers(config, config.spelling("moe_topk", "num_experts_per_tok"), 1, n_layers),
        "norm_topk_prob": True,
        "d_shared_expert": width,
        **read_rotary(config, fields["d_head"], fields["n_ctx"]),
    }


def _in_all_layers(config: ConfigView, name: str, if_absent: int, n_layers: int, only: int | None = None) -> int:
    """Returns a size that may be said for each layer, and is the same in all; `only` is what it must be."""
    said = config.take(name, if_absent)
    sizes = list(said) if isinstance(said, (list, tuple)) else [said] * n_layers
    if len(sizes) != n_layers:
        raise config.corrupt(f"{name} = {str(said)[:60]} is not a list of {n_layers}, one a layer")
    for size in sizes:
        config.check_size(name, size, 10_000_000)
    if len(set(sizes)) > 1 or only not in (None, sizes[0]):
        must = "the same in all layers" if only is None else f"{only} in all layers"
        config.problems.append(f"{name} = {str(said)[:60]}: only one that is {must} is implemented")
    return int(sizes[0])


def read_rotary(config: ConfigView, d_head: int, n_ctx: int) -> dict[str, Any]:
    """Returns how positions rotate: with an ``alpha`` by the base ``theta * alpha^(d / (d - 2))``, at any length."""
    given = {**config.mapping("rope_scaling"), **config.mapping("rope_parameters")}
    if not given.get("alpha") or given.get("rope_type", given.get("type")) != "dynamic" or d_head == 2:
        return config.rotary(d_head, n_ctx)
    alpha = config.check_number("alpha of the rope parameters", given["alpha"], above=0)
    theta = given.get("rope_theta")
    theta = (
        config.number("rope_theta", 10000.0, above=0) if theta is None else config.check_number("rope_theta", theta, 0)
    )
    # transformers takes the other numbers that files say beside it, and uses none of them.
    strange = sorted({*given} - {"alpha", "rope_type", "type", "rope_theta", *_UNUSED})
    if strange:
        config.problems.append(f"rope parameters {strange} beside alpha: their meaning is not known here")
    base = float(theta) * float(alpha) ** (d_head / (d_head - 2))
    return type(config)({"rope_theta": base}, config.label, config.said_by).rotary(d_head, n_ctx)


_UNUSED = ("factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim")

HUNYUAN_V1_MOE = Architecture(
    name="HunYuanMoEV1ForCausalLM",
    model_type="hunyuan_v1_moe",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block={
        **{name: recipe for name, recipe in llama_like.BLOCK.items() if not name.startswith("mlp.")},
        "attn.q_norm.w": Take("{p}layers.{i}.self_attn.query_layernorm.weight", "d_head"),
        "attn.k_norm.w": Take("{p}layers.{i}.self_attn.key_layernorm.weight", "d_head"),
        **llama_like.attention_biases(When("attention_bias", False)),
        **MIXTURE,
        "mlp.W_gate.weight": Take("{p}layers.{i}.mlp.gate.wg.weight", "expert d_model"),
        **mixtures.shared_expert("{p}layers.{i}.mlp.shared_mlp"),
    },
    dropped=llama_like.DROPPED,
    read_config=_read,
    ignored={**mixtures.IGNORED, "eod_token_id": "a token of the tokenizer"},
    required={
        **llama_like.REQUIRED,
        "mlp_bias": False,
        "use_qk_norm": True,
        "use_cla": False,
        "moe_layer_num_skipped": 0,
    },
)
