"""From the flat fields of a config to records: the only reader of the fields that shape a block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from transformer_lens.anatomy.attention import Attention
from transformer_lens.anatomy.layer import Branch, Layer
from transformer_lens.anatomy.mixture import Mixture
from transformer_lens.anatomy.mlp import Mlp
from transformer_lens.anatomy.model import Embedding, Model, NormState, Unembedding
from transformer_lens.anatomy.norm import Norm
from transformer_lens.anatomy.rotary import Rotary, frozen_scaling
from transformer_lens.anatomy.router import Router, Scores
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.config.rope_scaling import InvalidConfigError

Config = HookedTransformerConfig

PER_LAYER_FIELDS = ("attn_types", "rotary_layers", "expert_layers")
"""Fields of a config that are None or a list with one entry for each layer."""

_NORM_KINDS: Mapping[str, Literal["LN", "RMS"]] = {"LN": "LN", "LNPre": "LN", "RMS": "RMS", "RMSPre": "RMS"}
_SCORES: Mapping[str, Scores] = {"softmax": "softmax", "sigmoid": "sigmoid", "sparsemixer": "sparsemixer"}
_POSITIONS = ("standard", "rotary", "shortformer", "alibi", "none")


def model_of(cfg: Config) -> Model:
    """Returns what a model of a config is made of.

    Raises:
        InvalidConfigError: A field has a value that means nothing.
    """
    return Model(
        embedding=embedding_of(cfg),
        layers=layers(cfg),
        final_norm=final_norm_of(cfg),
        unembedding=unembedding_of(cfg),
        norm_state=norm_state(cfg),
    )


def layers(cfg: Config) -> tuple[Layer, ...]:
    """Returns the layers of a model of a config, in order."""
    return tuple(layer_of(cfg, index) for index in range(cfg.n_layers))


def layer_of(cfg: Config, index: int) -> Layer:
    """Returns one layer of a model of a config.

    Raises:
        InvalidConfigError: A field has a value that means nothing.
    """
    computes = None if cfg.attn_only else mixture_of(cfg) if has_experts(cfg, index) else mlp_of(cfg)
    attends = Branch("attn", attention_of(cfg, cfg.attention_type(index), index))
    return Layer(
        index,
        attention=_between_norms(cfg, attends, "ln1"),
        mlp=None if computes is None else _between_norms(cfg, Branch("mlp", computes), "ln2"),
        is_parallel=cfg.parallel_attn_mlp and computes is not None,
    )


def attention_of(cfg: Config, attn_type: str = "global", index: int | None = None) -> Attention:
    """Returns what the attention of a layer computes.

    Args:
        cfg: Of the model.
        attn_type: "global", or "local" for one with a window.
        index: The layer; None where it stands alone.

    Raises:
        InvalidConfigError: A window is asked for, and its width is not given.
    """
    if attn_type == "local" and not isinstance(cfg.window_size, int):
        raise InvalidConfigError("A local attention layer needs cfg.window_size.")
    divisor = float(cfg.attn_scale) if cfg.use_attn_scale else 1.0
    if cfg.scale_attn_by_inverse_layer_idx and index is not None:
        divisor *= index + 1
    q_norm, k_norm = _query_key_norms(cfg)
    return Attention(
        n_heads=cfg.n_heads,
        n_kv_heads=cfg.n_kv_heads,
        d_head=cfg.d_head,
        is_grouped=cfg.n_key_value_heads is not None,
        is_causal=cfg.attention_dir == "causal",
        window=cfg.window_size if attn_type == "local" else None,
        rotary=rotary_of(cfg, attn_type, index),
        alibi=("bfloat16" if cfg.alibi_in_bfloat16 else "exact") if _positions(cfg) == "alibi" else None,
        divisor=divisor,
        softcap=float(cfg.attn_scores_soft_cap),
        q_norm=q_norm,
        k_norm=k_norm,
        norms_after_rotary=cfg.qk_norm_after_rotary,
        clip=None if cfg.clip_qkv is None else float(cfg.clip_qkv),
        has_sinks=cfg.use_attention_sinks,
    )


def rotary_of(cfg: Config, attn_type: str = "global", index: int | None = None) -> Rotary | None:
    """Returns how queries and keys of a layer turn, or None; the arguments are those of `attention`."""
    turns = cfg.rotary_layers is None or index is None or cfg.rotary_layers[index]
    if _positions(cfg) != "rotary" or not turns:
        return None
    assert cfg.rotary_dim is not None
    theta, scaling = float(cfg.rotary_base), cfg.rope_scaling
    if attn_type == "local" and cfg.rotary_base_local is not None:
        theta, scaling = float(cfg.rotary_base_local), None
    if attn_type == "local" and cfg.yarn_global_attn_only:
        scaling = None
    return Rotary(cfg.rotary_dim, theta, frozen_scaling(scaling), cfg.rotary_adjacent_pairs)


def mlp_of(cfg: Config) -> Mlp:
    """Returns what the MLP of a layer computes."""
    assert cfg.d_mlp is not None and cfg.act_fn is not None
    inner = None
    if cfg.is_layer_norm_activation():
        # SoLU's norm is a LayerNorm, of every model that has norms or has folded them.
        folded = cfg.normalization_type not in (None, "LN")
        inner = Norm("mlp.ln", "LN", "d_mlp", float(cfg.eps), is_folded=folded)
    needs_bias = cfg.gated_mlp and _reads_a_bias(cfg)
    return Mlp(
        d_mlp=cfg.d_mlp,
        activation=cfg.act_fn,
        is_gated=cfg.gated_mlp,
        has_gate_bias=cfg.gated_mlp and (cfg.gated_mlp_bias or needs_bias),
        gate_bias_is_ours=needs_bias and not cfg.gated_mlp_bias,
        inner_norm=inner,
    )


def has_experts(cfg: Config, index: int) -> bool:
    """Says whether the MLP of a layer is a mixture of experts."""
    return cfg.num_experts is not None and (cfg.expert_layers is None or cfg.expert_layers[index])


def mixture_of(cfg: Config) -> Mixture:
    """Returns what a mixture of experts computes."""
    assert cfg.num_experts is not None and cfg.act_fn is not None
    width = cfg.d_mlp if cfg.d_expert is None else cfg.d_expert
    assert width is not None
    return Mixture(
        n_experts=cfg.num_experts,
        d_expert=width,
        activation=cfg.act_fn,
        router=router_of(cfg),
        has_biases=cfg.expert_bias,
        biases_are_ours=_reads_a_bias(cfg) and not cfg.expert_bias,
        clamp=None if cfg.expert_clamp is None else float(cfg.expert_clamp),
        d_shared=cfg.d_shared_expert,
        gates_shared=cfg.gates_shared_expert,
    )


def router_of(cfg: Config) -> Router:
    """Returns how the mixtures of a model send tokens to experts.

    Raises:
        InvalidConfigError: The config names no scores that are known, or groups that cannot be.
    """
    assert cfg.num_experts is not None and cfg.experts_per_token is not None
    if cfg.router_scores not in _SCORES:
        raise InvalidConfigError(f"router_scores is {cfg.router_scores!r}, and not {', '.join(_SCORES)}")
    groups, chosen = cfg.router_groups, cfg.router_groups_chosen
    in_group = cfg.num_experts // groups
    if groups > 1 and (cfg.num_experts % groups or in_group < 2 or chosen * in_group < cfg.experts_per_token):
        raise InvalidConfigError(
            f"{cfg.num_experts} experts in {groups} groups, of which {chosen} are chosen: a group has at least two, "
            f"and those chosen have at least {cfg.experts_per_token}, the experts of a token"
        )
    return Router(
        n_chosen=cfg.experts_per_token,
        renormalizes=cfg.norm_topk_prob,
        scores=_SCORES[cfg.router_scores],
        has_bias=cfg.router_bias or _reads_a_bias(cfg),
        bias_is_ours=_reads_a_bias(cfg) and not cfg.router_bias,
        has_correction=cfg.router_correction,
        n_groups=groups,
        n_groups_chosen=chosen,
        multiplier=float(cfg.router_multiplier),
        epsilon=float(cfg.router_epsilon),
        floor=float(cfg.router_floor),
        jitter=float(cfg.router_jitter),
        is_precise=cfg.router_is_precise,
    )


def _reads_a_bias(cfg: Config) -> bool:
    """Says whether the norm before MLPs has a bias: each matrix that reads it then needs one to fold it into."""
    reads = norm_before_branch(cfg, "ln2")
    return reads is not None and reads.kind == "LN" and reads.has_bias


def embedding_of(cfg: Config) -> Embedding:
    """Returns how the residual stream begins."""
    positions = _positions(cfg)
    return Embedding(
        norm=Norm("embed.ln", "LN", eps=float(cfg.eps)) if cfg.post_embedding_ln else None,
        multiplier=float(cfg.embedding_multiplier),
        # A model with ALiBi has the table too, and does not use it.
        has_positions=positions != "rotary",
        adds_positions=positions == "standard",
        adds_positions_to_queries=positions == "shortformer",
    )


def unembedding_of(cfg: Config) -> Unembedding:
    """Returns what becomes of the stream behind the final norm."""
    return Unembedding(float(cfg.logit_multiplier), float(cfg.output_logits_soft_cap))


def absent_traits(cfg: Config) -> tuple[str, ...]:
    """Returns the fields by which a config asks for what no record says yet."""
    asked = {
        "use_logn_attn": cfg.use_logn_attn,
        "use_dynamic_ntk_rope": cfg.use_dynamic_ntk_rope,
        "load_in_4bit": cfg.load_in_4bit,
    }
    return tuple(name for name, is_asked in asked.items() if is_asked)


def norm_state(cfg: Config) -> NormState:
    """Returns "none" for a model without norms, "folded" where they have no parameters left, else "whole"."""
    if cfg.normalization_type is None:
        return "none"
    return "folded" if cfg.normalization_type in ("LNPre", "RMSPre") else "whole"


def with_norms(cfg: Config, state: Literal["whole", "folded"]) -> Config:
    """Returns a copy of a config whose norms have been folded, or have not; one without norms stays as it is."""
    kind = cfg.normalization_type
    if kind is None:
        return replace_fields(cfg)
    return replace_fields(cfg, normalization_type=kind.removesuffix("Pre") + ("Pre" if state == "folded" else ""))


def mark_norms_folded(cfg: Config) -> None:
    """Makes a config say that norms are folded: that of a model which exists, whose modules share the object."""
    cfg.normalization_type = with_norms(cfg, "folded").normalization_type


def replace_fields(cfg: Config, **fields: Any) -> Config:
    """Returns a copy of a config with other values in some fields; nothing is derived anew and nothing is seeded."""
    out = type(cfg).__new__(type(cfg))
    out.__dict__.update({**cfg.__dict__, **fields})
    return out


def first_layers(fields: Mapping[str, Any], n_layers: int) -> dict[str, Any]:
    """Returns the fields of a config cut to its first layers.

    Args:
        fields: By name.
        n_layers: Layers to keep.
    """
    lists = {name: fields[name][:n_layers] for name in PER_LAYER_FIELDS if fields.get(name) is not None}
    return {**fields, **lists, "n_layers": n_layers}


def final_norm_of(cfg: Config) -> Norm | None:
    """Returns the norm before the unembedding, or None."""
    if not cfg.has_final_norm:
        return None
    norm = _norm(cfg, "ln_final", is_folded=norm_state(cfg) == "folded")
    return replace(norm, kind="RMS", has_bias=False) if norm is not None and cfg.final_rms else norm


def norm_before_branch(cfg: Config, name: str) -> Norm | None:
    """Returns the norm of the stream that a branch reads, "ln1" or "ln2"; None where it reads the stream itself."""
    reads = placement(cfg) in ("pre", "sandwich")
    return _norm(cfg, name, is_folded=norm_state(cfg) == "folded") if reads else None


def placement(cfg: Config) -> Literal["pre", "sandwich", "output", "post"]:
    """Returns where the norms of a block stand.

    "pre": before each branch; "sandwich": before and after it; "output": after it, before the sum; "post": after the
    sum.

    Raises:
        InvalidConfigError: The config names another place.
    """
    if cfg.norm_placement is None:
        return "sandwich" if cfg.use_normalization_before_and_after else "pre"
    if cfg.norm_placement == "pre" or cfg.norm_placement == "sandwich":
        return cfg.norm_placement
    if cfg.norm_placement == "output" or cfg.norm_placement == "post":
        return cfg.norm_placement
    raise InvalidConfigError(f"norm_placement is {cfg.norm_placement!r}, and not pre, sandwich, output or post")


def _between_norms(cfg: Config, branch: Branch, name: str) -> Branch:
    """Returns a branch with its norms; `name` is that of its first one, "ln1" or "ln2"."""
    place = placement(cfg)
    return replace(
        branch,
        reads=norm_before_branch(cfg, name),
        writes=_norm(cfg, {"sandwich": f"{name}_post", "output": name}[place])
        if place in ("sandwich", "output")
        else None,
        closes=_norm(cfg, name) if place == "post" else None,
        multiplier=float(cfg.residual_multiplier),
    )


def _norm(cfg: Config, name: str, axes: str = "d_model", is_folded: bool = False) -> Norm | None:
    kind = cfg.normalization_type
    if kind is None:
        return None
    if kind not in _NORM_KINDS:
        raise InvalidConfigError(f"normalization_type is {kind!r}, and not LN, LNPre, RMS, RMSPre or None")
    is_rms = _NORM_KINDS[kind] == "RMS"
    return Norm(
        name=name,
        kind=_NORM_KINDS[kind],
        axes=axes,
        eps=float(cfg.eps),
        has_weight=cfg.norm_weight,
        has_bias=not is_rms and cfg.norm_weight and cfg.norm_bias,
        offset=float(cfg.norm_weight_offset),
        casts_early=is_rms and not cfg.norm_casts_late,
        is_folded=is_folded,
    )


# For each kind of norm of queries and keys: its formula, the axes of its weight (of queries, of keys), has it a bias.
_QUERY_KEY_NORMS: Mapping[str, tuple[Literal["LN", "RMS"], tuple[str, str], bool]] = {
    "RMS": ("RMS", ("d_head", "d_head"), False),
    "RMS over heads": ("RMS", ("d_heads", "d_kv_heads"), False),
    "LN": ("LN", ("d_head", "d_head"), True),
    "LN by head": ("LN", ("head d_head", "kv_head d_head"), False),
}


def _query_key_norms(cfg: Config) -> tuple[Norm | None, Norm | None]:
    """Returns the norms of queries and of keys. They are never folded: a rotation or the scores stand behind them."""
    if not cfg.use_qk_norm:
        return None, None
    if cfg.qk_norm_kind not in _QUERY_KEY_NORMS:
        raise InvalidConfigError(f"qk_norm_kind is {cfg.qk_norm_kind!r}, and not {', '.join(_QUERY_KEY_NORMS)}")
    kind, axes, has_bias = _QUERY_KEY_NORMS[cfg.qk_norm_kind]
    queries, keys = (
        Norm(
            name, kind, weight, float(cfg.eps), has_bias=has_bias, offset=float(cfg.norm_weight_offset),
            casts_early=kind == "RMS" and not cfg.norm_casts_late,
        )
        for name, weight in zip(("attn.q_norm", "attn.k_norm"), axes)
    )  # fmt: skip
    return queries, keys


def _positions(cfg: Config) -> str:
    if cfg.positional_embedding_type not in _POSITIONS:
        raise InvalidConfigError(
            f"positional_embedding_type is {cfg.positional_embedding_type!r}, and not {', '.join(_POSITIONS)}"
        )
    return cfg.positional_embedding_type
