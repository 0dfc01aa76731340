"""Normalizations: LayerNorm and RMS norm, with parameters and with parameters folded away."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transformer_lens import anatomy
from transformer_lens.components.parameter import new_parameter
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.hook_points import HookPoint, is_plain

Normed = Float[Tensor, "batch pos length"] | Float[Tensor, "batch pos head length"]


class _Norm(nn.Module):
    """What the four share: where the scale is observed, and the precision in which it is computed."""

    def __init__(self, cfg: dict | HookedTransformerConfig) -> None:
        super().__init__()
        self.cfg = HookedTransformerConfig.unwrap(cfg)
        self.eps = self.cfg.eps
        self.hook_scale = HookPoint("batch pos ... one")
        self.hook_normalized = HookPoint("batch pos ... length")

    def _precise(self, x: Tensor) -> Tensor:
        """Returns activations in at least float32, the precision that norms are computed in."""
        return x if self.cfg.dtype in (torch.float32, torch.float64) else x.to(torch.float32)

    def _scaled(self, x: Tensor) -> Tensor:
        """Returns ``x / sqrt(mean(x^2) + eps)``, its divisor through `hook_scale`."""
        return x / self.hook_scale((x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())


class LayerNorm(_Norm):
    """``hook_normalized((x - mean) / scale * (offset + w) + b)``, ``scale = sqrt(var + eps)`` at `hook_scale`."""

    def __init__(
        self,
        cfg: dict | HookedTransformerConfig,
        length: int | None = None,
        has_bias: bool = True,
        offset: float = 0.0,
        n_heads: int | None = None,
    ) -> None:
        """Builds a norm of weight one and bias zero.

        Args:
            cfg: Of the model.
            length: Width that is normalized; None means ``d_model``.
            has_bias: Whether there is a bias.
            offset: Added to the weight.
            n_heads: Heads with weights of their own, ``[head length]``; None means one weight for all.
        """
        super().__init__(cfg)
        self.length = self.cfg.d_model if length is None else length
        self.offset = offset
        shape = (self.length,) if n_heads is None else (n_heads, self.length)
        self.w = new_parameter(*shape, dtype=self.cfg.dtype, fill=1.0 - offset)
        self.b = new_parameter(*shape, dtype=self.cfg.dtype, fill=0.0) if has_bias else None

    def forward(self, x: Normed) -> Normed:
        """Normalises the last axis."""
        x = self._precise(x)
        x = self._scaled(x - x.mean(-1, keepdim=True)) * _repeated(_shifted(self.w, self.offset, x), x)
        return self.hook_normalized(x if self.b is None else x + _repeated(self.b, x)).to(self.cfg.dtype)


class LayerNormPre(_Norm):
    """``hook_normalized((x - mean) / scale)``, ``scale = sqrt(var + eps)`` at `hook_scale`; it has no parameters."""

    def forward(self, x: Normed) -> Normed:
        """Normalises the last axis."""
        x = self._precise(x)
        return self.hook_normalized(self._scaled(x - x.mean(-1, keepdim=True))).to(self.cfg.dtype)


class RMSNorm(_Norm):
    """``hook_normalized(x / scale) * (offset + w)``, ``scale = sqrt(mean(x^2) + eps)`` at `hook_scale`."""

    def __init__(
        self,
        cfg: dict | HookedTransformerConfig,
        length: int | None = None,
        offset: float = 0.0,
        casts_early: bool = True,
    ) -> None:
        """Builds a norm of weight one.

        Args:
            cfg: Of the model.
            length: Width that is normalized; None means ``d_model``.
            offset: Added to the weight.
            casts_early: Whether ``x / scale`` is rounded to the model's dtype before the weight multiplies it.
        """
        super().__init__(cfg)
        self.length = self.cfg.d_model if length is None else length
        self.offset, self.casts_early = offset, casts_early
        self.w = new_parameter(self.length, dtype=self.cfg.dtype, fill=1.0 - offset)

    def forward(self, x: Normed) -> Normed:
        """Normalises the last axis, or the last two where the weight is as long as both."""
        if x.shape[-1] == self.length:
            return self._normalized(x, self.w)
        # All heads at once. Keys that are repeated for every query head repeat their weight too.
        weight = _repeated(self.w.view(-1, x.shape[-1]), x).flatten()
        return self._normalized(x.flatten(-2), weight).unflatten(-1, x.shape[-2:])

    def _normalized(self, x: Tensor, weight: Tensor) -> Tensor:
        x = self.hook_normalized(self._scaled(self._precise(x)))
        if self.casts_early:
            x = x.to(self.cfg.dtype)
        return (x * _shifted(weight, self.offset, x)).to(self.cfg.dtype)


class RMSNormPre(_Norm):
    """``hook_normalized(x / scale)``, ``scale = sqrt(mean(x^2) + eps)`` at `hook_scale`; it has no parameters."""

    def forward(self, x: Normed) -> Normed:
        """Normalises the last axis."""
        return self.hook_normalized(self._scaled(self._precise(x))).to(self.cfg.dtype)


def _shifted(weight: Tensor, offset: float, x: Tensor) -> Tensor:
    """Returns ``offset + weight`` in the dtype of activations: in the weight's own it would be rounded."""
    return weight if offset == 0.0 else weight.to(x.dtype) + offset


def _repeated(weight: Tensor, x: Tensor) -> Tensor:
    """Returns a weight for each head of `x`, where several heads of `x` share a row of the weight."""
    if weight.ndim == 1 or weight.shape[0] == x.shape[-2]:
        return weight
    return weight.repeat_interleave(x.shape[-2] // weight.shape[0], dim=0)


Norm = LayerNorm | LayerNormPre | RMSNorm | RMSNormPre | nn.Identity
_OURS = (LayerNorm, LayerNormPre, RMSNorm, RMSNormPre, nn.Identity)


def norm_module(cfg: HookedTransformerConfig, norm: anatomy.Norm | None) -> Norm:
    """Makes the module of a norm; None is the identity."""
    if norm is None:
        return nn.Identity()
    has_parameters = norm.has_weight and not norm.is_folded
    if norm.kind == "RMS" and not has_parameters:
        return RMSNormPre(cfg)
    if norm.kind == "LN" and not has_parameters:
        return LayerNormPre(cfg)
    sizes = anatomy.axis_sizes(cfg)
    *heads, width = (sizes[axis] for axis in norm.axes.split())
    if norm.kind == "RMS":
        return RMSNorm(cfg, width, norm.offset, norm.casts_early)
    return LayerNorm(cfg, width, norm.has_bias, norm.offset, heads[0] if heads else None)


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
