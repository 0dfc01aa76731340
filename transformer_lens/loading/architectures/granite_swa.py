"""Granite with sinks, and windows on three layers of four; layers may have rotary bases of their own, or none."""

from typing import Any

from transformer_lens.loading.architectures import granite, llama_like
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Take, When

_DEFAULTS = {
    "hidden_size": 2560,
    "num_attention_heads": 20,
    "num_key_value_heads": 4,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "max_position_embeddings": 8192,
    "vocab_size": 100352,
}


def read_positions(config: ConfigView, fields: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of windows and of rotary bases, for fields of sizes that are read already."""
    n_layers = fields["n_layers"]
    layer_types = config.layer_types(n_layers)
    if layer_types is None:
        layer_types = ["sliding_attention" if layer % 4 else "full_attention" for layer in range(n_layers)]
    windows = llama_like.window(config.window("sliding_window", 128), layer_types)
    return {**windows, **_bases(config, windows.get("attn_types", ["global"] * n_layers), fields)}


def _bases(config: ConfigView, attn_types: list[str], fields: dict[str, Any]) -> dict[str, Any]:
    """Returns how layers rotate: by bases of their own, of which 0 means not at all."""
    rotary = config.rotary(fields["d_head"], fields["n_ctx"])
    bases = config.take("layer_rope_theta")
    if bases is None or not rotary:
        return rotary
    if not isinstance(bases, (list, tuple)) or len(bases) != len(attn_types):
        raise config.corrupt(f"layer_rope_theta = {str(bases)[:60]} is not a list of {len(attn_types)}, one a layer")
    for place, base in enumerate(bases):
        config.check_number(f"layer_rope_theta[{place}]", base, above=-1)
    by_type = {
        kind: sorted({base for base, of in zip(bases, attn_types) if of == kind and base})
        for kind in ("global", "local")
    }
    if any(len(found) > 1 for found in by_type.values()):
        config.problems.append(f"layer_rope_theta = {str(bases)[:60]}: several bases in layers of one type")
        return rotary
    whole, windowed = (found[0] if found else None for found in by_type.values())
    if whole is None:
        whole, windowed = windowed, None
    if rotary["rope_scaling"] is not None and windowed not in (None, whole):
        config.problems.append("layer_rope_theta: two bases, both of them scaled")
    out = {**rotary, "rotary_base": rotary["rotary_base"] if whole is None else whole}
    if windowed not in (None, whole):
        out["rotary_base_local"] = windowed
    return out if all(bases) else {**out, "rotary_layers": [base != 0 for base in bases]}


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.ungroup_if_equal(llama_like.read_sizes(config, _DEFAULTS, eps=1e-5))
    config.flag("attention_bias", False)
    return {
        **fields,
        "gated_mlp_bias": config.flag("mlp_bias", False),
        "use_attention_sinks": True,
        **granite.read_multipliers(config),
        **read_positions(config, fields),
    }


GRANITE_SWA = Architecture(
    name="GraniteSWAForCausalLM",
    model_type="granite_swa",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block={
        **llama_like.BLOCK,
        **llama_like.attention_biases(When("attention_bias", False)),
        **llama_like.mlp_biases(When("mlp_bias", False)),
        "attn.sinks": Take("{p}layers.{i}.self_attn.sinks", "head"),
    },
    dropped=llama_like.DROPPED,
    read_config=_read,
    required=llama_like.REQUIRED,
    ties_by_default=True,
)
