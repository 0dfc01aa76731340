"""Our parameters: for each its name and the axes it has, in the order in which a model registers them."""

from __future__ import annotations

from collections.abc import Mapping

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig

# Reader weights of each norm, and the biases that take in the norm's own.
READERS: Mapping[str, tuple[tuple[str, str | None], ...]] = {
    "ln1": (("attn.W_Q", "attn.b_Q"), ("attn.W_K", "attn.b_K"), ("attn.W_V", "attn.b_V")),
    "ln2": (("mlp.W_in", "mlp.b_in"), ("mlp.W_gate", "mlp.b_gate")),
    "ln_final": (("unembed.W_U", "unembed.b_U"),),
}
# The axes of the matrices, by the last part of their names: what ``nn.Linear`` would hold.
MATRICES: Mapping[str, str] = {
    "W_Q": "head d_model d_head", "W_K": "kv_head d_model d_head", "W_V": "kv_head d_model d_head",
    "W_O": "head d_head d_model", "W_in": "d_model d_mlp", "W_gate": "d_model d_mlp", "W_out": "d_mlp d_model",
    "W_U": "d_model d_vocab_out",
}  # fmt: skip
# Norms of what a branch writes. They are never folded: their weight cannot pass the sum of the residual stream.
OUTPUT_NORMS: tuple[str, ...] = ("ln1_post", "ln2_post")
# The norm of the embedding, where there is one. It is always a LayerNorm, and what it reads is W_E alone.
EMBEDDING_NORM = "embed.ln"
# Norms of each head's queries and keys.
QUERY_KEY_NORMS: tuple[str, ...] = ("attn.q_norm", "attn.k_norm")
# What writes to the residual stream. Behind the embedding's norm W_E does not: what it is read by takes its mean away.
WRITERS: tuple[str, ...] = (
    "embed.W_E", "pos_embed.W_pos", "attn.W_O", "attn.b_O", "mlp.W_out", "mlp.b_out",
)  # fmt: skip


def axis_sizes(cfg: HookedTransformerConfig) -> dict[str, int]:
    """Returns the size of every axis that layouts may name."""
    return {
        "d_model": cfg.d_model,
        "d_head": cfg.d_head,
        "head": cfg.n_heads,
        "kv_head": cfg.n_kv_heads,
        "d_mlp": cfg.d_mlp or 0,
        "d_vocab": cfg.d_vocab,
        "d_vocab_out": cfg.d_vocab_out,
        "n_ctx": cfg.n_ctx,
        "qkv": 3,
        "gate_up": 2,
        "expert": cfg.num_experts or 0,
    }


def grouped(name: str, cfg: HookedTransformerConfig) -> str:
    """Returns the parameter's name: keys and values of grouped heads start with an underscore."""
    if cfg.n_key_value_heads is None:
        return name
    head, _, leaf = name.rpartition(".")
    return f"{head}._{leaf}" if leaf in ("W_K", "W_V", "b_K", "b_V") else name


def norm_kind(name: str, cfg: HookedTransformerConfig) -> str | None:
    """Returns which formula a norm has, folded or not: "LN", which takes the mean away, "RMS", or None.

    Args:
        name: "ln1", "ln_final" …
        cfg: Of the model.
    """
    kind = cfg.normalization_type
    if kind is None:
        return None
    return "RMS" if kind in ("RMS", "RMSPre") or (name == "ln_final" and cfg.final_rms) else "LN"


def _norm(name: str, cfg: HookedTransformerConfig) -> dict[str, str]:
    kind = norm_kind(name, cfg)
    if kind is None or (cfg.normalization_type in ("LNPre", "RMSPre") and name not in OUTPUT_NORMS):
        return {}
    return {f"{name}.w": "d_model", f"{name}.b": "d_model"} if kind == "LN" else {f"{name}.w": "d_model"}


def block_schema(cfg: HookedTransformerConfig) -> dict[str, str]:
    """Returns the axes of the parameters of one block, by names without the block."""
    out = _norm("ln1", cfg)
    if cfg.use_normalization_before_and_after:
        out |= _norm("ln1_post", cfg)
    if not cfg.attn_only:
        out |= _norm("ln2", cfg)
        if cfg.use_normalization_before_and_after:
            out |= _norm("ln2_post", cfg)
    out |= {
        "attn.W_Q": MATRICES["W_Q"],
        "attn.W_O": MATRICES["W_O"],
        "attn.b_Q": "head d_head",
        "attn.b_O": "d_model",
        grouped("attn.W_K", cfg): MATRICES["W_K"],
        grouped("attn.W_V", cfg): MATRICES["W_V"],
        grouped("attn.b_K", cfg): "kv_head d_head",
        grouped("attn.b_V", cfg): "kv_head d_head",
    }
    if cfg.use_qk_norm:
        out |= {"attn.q_norm.w": "d_head", "attn.k_norm.w": "d_head"}
    if cfg.attn_only:
        return out
    out["mlp.W_in"] = MATRICES["W_in"]
    if cfg.gated_mlp:
        out["mlp.W_gate"] = MATRICES["W_gate"]
    out |= {"mlp.b_in": "d_mlp", "mlp.W_out": MATRICES["W_out"], "mlp.b_out": "d_model"}
    if cfg.gated_mlp_bias:
        out["mlp.b_gate"] = "d_mlp"
    if cfg.is_layer_norm_activation() and cfg.normalization_type == "LN":
        out |= {"mlp.ln.w": "d_mlp", "mlp.ln.b": "d_mlp"}
    return out


def schema(cfg: HookedTransformerConfig) -> dict[str, str]:
    """Returns the axes of every parameter of a model."""
    out = {"embed.W_E": "d_vocab d_model"}
    if cfg.post_embedding_ln:
        out |= {"embed.ln.w": "d_model", "embed.ln.b": "d_model"}
    # A model with ALiBi has the table too, and does not use it.
    if cfg.positional_embedding_type != "rotary":
        out["pos_embed.W_pos"] = "n_ctx d_model"
    block = block_schema(cfg)
    for layer in range(cfg.n_layers):
        out |= {f"blocks.{layer}.{name}": axes for name, axes in block.items()}
    out |= _norm("ln_final", cfg)
    return out | {"unembed.W_U": MATRICES["W_U"], "unembed.b_U": "d_vocab_out"}
