"""What Llama and its relatives share: names of norms and matrices, sizes."""

from typing import Any

from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Recipe, Take, When

ONCE: dict[str, Recipe] = {
    "embed.W_E": Take("{p}embed_tokens.weight", "d_vocab d_model"),
    "ln_final.w": Take("{p}norm.weight", "d_model"),
    "unembed.W_U": Take("lm_head.weight", "d_vocab_out d_model", tied_to="{p}embed_tokens.weight"),
}
NORMS: dict[str, Recipe] = {
    "ln1.w": Take("{p}layers.{i}.input_layernorm.weight", "d_model"),
    "ln2.w": Take("{p}layers.{i}.post_attention_layernorm.weight", "d_model"),
}
OUTPUT: dict[str, Recipe] = {
    "attn.W_O": Take("{p}layers.{i}.self_attn.o_proj.weight", "d_model (head d_head)"),
    "mlp.W_out": Take("{p}layers.{i}.mlp.down_proj.weight", "d_model d_mlp"),
}
BLOCK: dict[str, Recipe] = {
    **NORMS,
    **OUTPUT,
    "attn.W_Q": Take("{p}layers.{i}.self_attn.q_proj.weight", "(head d_head) d_model"),
    "attn.W_K": Take("{p}layers.{i}.self_attn.k_proj.weight", "(kv_head d_head) d_model"),
    "attn.W_V": Take("{p}layers.{i}.self_attn.v_proj.weight", "(kv_head d_head) d_model"),
    "mlp.W_in": Take("{p}layers.{i}.mlp.up_proj.weight", "d_mlp d_model"),
    "mlp.W_gate": Take("{p}layers.{i}.mlp.gate_proj.weight", "d_mlp d_model"),
}
QUERY_KEY_NORMS: dict[str, Recipe] = {
    "attn.q_norm.w": Take("{p}layers.{i}.self_attn.q_norm.weight", "d_head"),
    "attn.k_norm.w": Take("{p}layers.{i}.self_attn.k_norm.weight", "d_head"),
}
REQUIRED: dict[str, Any] = {"rope_interleaved": False, "use_mrope": False}
UNBIASED: dict[str, Any] = {"attention_bias": False, "mlp_bias": False}
DROPPED = {"{p}layers.{i}.self_attn.rotary_emb.inv_freq": "rotary frequencies, computed here"}


def attention_biases(when: When | None = None, output: bool = True) -> dict[str, Recipe]:
    """Returns the recipes of the biases of queries, keys and values, and of the output.

    Args:
        when: Where it does not hold there are none.
        output: Whether the output has one too.
    """
    biases: dict[str, Recipe] = {
        "attn.b_Q": Take("{p}layers.{i}.self_attn.q_proj.bias", "(head d_head)", when=when),
        "attn.b_K": Take("{p}layers.{i}.self_attn.k_proj.bias", "(kv_head d_head)", when=when),
        "attn.b_V": Take("{p}layers.{i}.self_attn.v_proj.bias", "(kv_head d_head)", when=when),
    }
    if output:
        biases["attn.b_O"] = Take("{p}layers.{i}.self_attn.o_proj.bias", "d_model", when=when)
    return biases


def mlp_biases(when: When | None = None) -> dict[str, Recipe]:
    """Returns the recipes of the biases of a gated MLP; where `when` does not hold there are none."""
    return {
        "mlp.b_in": Take("{p}layers.{i}.mlp.up_proj.bias", "d_mlp", when=when),
        "mlp.b_gate": Take("{p}layers.{i}.mlp.gate_proj.bias", "d_mlp", when=when),
        "mlp.b_out": Take("{p}layers.{i}.mlp.down_proj.bias", "d_model", when=when),
    }


def read_sizes(config: ConfigView, defaults: dict[str, int], eps: float = 1e-6) -> dict[str, Any]:
    """Returns the sizes and traits of a relative whose norms and activation are Llama's."""
    return {
        **read_shape(config, defaults),
        "act_fn": config.activation("hidden_act", "silu"),
        "eps": config.number("rms_norm_eps", eps, above=0),
    }


def read_shape(config: ConfigView, defaults: dict[str, int]) -> dict[str, Any]:
    """Returns the sizes and traits that all of them have; activation and eps go by other names in some.

    Defaults without a width of the MLP are those of a class that has no dense layer.
    """
    d_model = config.size("hidden_size", defaults["hidden_size"])
    n_heads = config.size("num_attention_heads", defaults["num_attention_heads"])
    # transformers takes null as one key head a query head, and absent as the class's default.
    n_kv = config.size_or_none("num_key_value_heads", defaults.get("num_key_value_heads")) or n_heads
    config.parts("num_attention_heads", n_heads, "num_key_value_heads", n_kv)
    return {
        "d_model": d_model,
        "n_heads": n_heads,
        "d_head": config.size("head_dim", defaults.get("head_dim", max(d_model // n_heads, 1))),
        "n_key_value_heads": n_kv,
        "d_mlp": config.size("intermediate_size", defaults["intermediate_size"])
        if "intermediate_size" in defaults
        else None,
        "n_layers": config.size("num_hidden_layers", defaults["num_hidden_layers"], "layers"),
        "n_ctx": config.size("max_position_embeddings", defaults["max_position_embeddings"], "tokens"),
        "d_vocab": config.size("vocab_size", defaults["vocab_size"]),
        "normalization_type": "RMS",
        "gated_mlp": True,
    }


def ungroup_if_equal(fields: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields without grouping where every head has keys of its own, as upstream does in some families."""
    if fields["n_key_value_heads"] == fields["n_heads"]:
        return {**fields, "n_key_value_heads": None}
    return fields


def every_nth_is_full(n_layers: int, pattern: int) -> list[str]:
    """Returns layer types of which every `pattern`-th sees all, and the others have a window."""
    return ["sliding_attention" if (layer + 1) % pattern else "full_attention" for layer in range(n_layers)]


def qwen_windows(config: ConfigView, n_layers: int) -> dict[str, Any]:
    """Returns the fields of Qwen's windows: on the layers from ``max_window_layers`` on, if at all."""
    windowed = config.flag("use_sliding_window", False)
    size = config.window("sliding_window", 4096)
    # 0 is a window on every layer.
    first = config.check_size("max_window_layers", config.take("max_window_layers", 28), 100_000, smallest=0)
    layer_types = config.layer_types(n_layers)
    if layer_types is not None and "sliding_attention" in layer_types and not (windowed and size):
        config.problems.append("layer_types: windows on some layers, which use_sliding_window or sliding_window denies")
    if layer_types is None:
        layer_types = ["sliding_attention" if layer >= first else "full_attention" for layer in range(n_layers)]
    return window(size if windowed else None, layer_types)


def window(size: int | None, layer_types: list[str]) -> dict[str, Any]:
    """Returns the fields of a sliding window on the layers called "sliding_attention"."""
    if size is None or "sliding_attention" not in layer_types:
        return {}
    return {
        "use_local_attn": True,
        "window_size": size,
        "attn_types": ["local" if kind == "sliding_attention" else "global" for kind in layer_types],
    }
