"""Which norm a config asks for, and whether anything looks into one."""

from __future__ import annotations

from typing import Any

from torch import nn

from transformer_lens.components.layer_norm import LayerNorm
from transformer_lens.components.layer_norm_pre import LayerNormPre
from transformer_lens.components.rms_norm import RMSNorm
from transformer_lens.components.rms_norm_pre import RMSNormPre
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.hook_points import is_plain

Norm = LayerNorm | LayerNormPre | RMSNorm | RMSNormPre | nn.Identity
_OURS = (LayerNorm, LayerNormPre, RMSNorm, RMSNormPre, nn.Identity)


def block_norm(cfg: HookedTransformerConfig, length: int | None = None) -> Norm:
    """Makes the norm of a block's branch."""
    kind = cfg.normalization_type
    if kind == "LN":
        return LayerNorm(cfg, length)
    if kind == "LNPre":
        return LayerNormPre(cfg)
    if kind == "RMS":
        return RMSNorm(cfg, length)
    if kind == "RMSPre":
        return RMSNormPre(cfg)
    if kind is None:
        return nn.Identity()
    raise ValueError(f"normalization_type = {kind!r} is not one of LN, LNPre, RMS, RMSPre, None.")


def final_norm(cfg: HookedTransformerConfig) -> Norm:
    """Makes the norm before the unembedding; `cfg.final_rms` makes it an RMS norm behind LayerNorms."""
    if cfg.final_rms and cfg.normalization_type == "LN":
        return RMSNorm(cfg)
    if cfg.final_rms and cfg.normalization_type == "LNPre":
        return RMSNormPre(cfg)
    return block_norm(cfg)


def output_norm(cfg: HookedTransformerConfig) -> Norm:
    """Makes the norm of what a branch writes; it keeps its weights where norms are folded: nothing linear reads it."""
    kind = cfg.normalization_type
    if kind is None:
        return nn.Identity()
    return RMSNorm(cfg) if kind in ("RMS", "RMSPre") else LayerNorm(cfg)


def is_unobserved(norm: nn.Module) -> bool:
    """Whether calling a norm once is the same as calling it again: it is one of ours and nothing is hooked to it."""
    if type(norm) not in _OURS or "forward" in norm.__dict__:
        return False
    if norm._forward_hooks or norm._forward_pre_hooks or norm._backward_hooks or norm._backward_pre_hooks:
        return False
    children: list[Any] = list(norm.children())
    return all(is_plain(child) for child in children)


def folded(norm: nn.Module) -> nn.Module:
    """Returns the norm without weight and bias that stands for one whose weight and bias have been folded.

    The hook points are the same objects, with what is hooked to them.
    """
    if not isinstance(norm, (LayerNorm, RMSNorm)):
        return norm
    out = LayerNormPre(norm.cfg) if isinstance(norm, LayerNorm) else RMSNormPre(norm.cfg)
    out.hook_scale, out.hook_normalized = norm.hook_scale, norm.hook_normalized
    return out
