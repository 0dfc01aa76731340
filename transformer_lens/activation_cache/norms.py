"""Norms as the linear maps that they are once their scale is held fixed."""

from dataclasses import dataclass, replace
from typing import Any, SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

from transformer_lens import anatomy
from transformer_lens.activation_cache.mapping import CacheMapping, as_slice
from transformer_lens.utilities.slice import Slice, SliceInput

__all__ = ["FrozenNorm", "NormsMixin"]


@dataclass(frozen=True)
class FrozenNorm:
    """``x -> center(x) / scale * weight * factor``, where each part may be missing.

    It is linear, so it acts on components.

    Attributes:
        centers: The mean over d_model is taken off.
        scale: ``[*batch_and_pos_dims 1]``.
        weight: ``[d_model]``.
        factor: Of a branch's output.
        bias: What the norm adds besides, ``[d_model]``: no component's part of its output.
    """

    centers: bool = False
    scale: Tensor | None = None
    weight: Tensor | None = None
    factor: float = 1.0
    bias: Tensor | None = None

    def __call__(self, components: Tensor) -> Tensor:
        """Maps components ``[component *batch_and_pos_dims d_model]``."""
        if self.centers:
            components = components - components.mean(-1, keepdim=True)
        if self.scale is not None:
            components = components / self.scale.to(components.device)
        if self.factor != 1.0:
            components = components * self.factor
        return components if self.weight is None else components * self.weight.to(components.device)

    def pull_back(self, onto: Tensor) -> Tensor:
        """Returns the directions `p` for which ``self(x) @ onto == divide(x @ p)``; d_model is the last axis."""
        if self.factor != 1.0:
            onto = onto * self.factor
        if self.weight is not None:
            onto = onto * self.weight.to(onto.device)
        return onto - onto.mean(-1, keepdim=True) if self.centers else onto

    def divide(self, projected: Tensor, squeezed: bool = False) -> Tensor:
        """Divides what was projected; `squeezed` says that it has no last axis for the scale's last one."""
        if self.scale is None:
            return projected
        scale = self.scale.to(projected.device)
        return projected / (scale[..., 0] if squeezed else scale)


class NormsMixin(CacheMapping):
    """Applies the norm before a layer to components of its input."""

    def apply_ln_to_stack(
        self,
        residual_stack: Float[Tensor, "num_components *batch_and_pos_dims d_model"],
        layer: SupportsIndex | None = None,
        mlp_input: bool = False,
        pos_slice: Slice | SliceInput = None,
        batch_slice: Slice | SliceInput = None,
        has_batch_dim: bool = True,
        recompute_ln: bool = False,
    ) -> Float[Tensor, "num_components *batch_and_pos_dims_out d_model"]:
        """Applies the norm that stands before a layer to components of the residual stream.

        The norm divides by the scale of the whole stream, which is in the cache, so that
        ``apply_ln_to_stack(stack).sum(0) == apply_ln_to_stack(stack.sum(0))``; LayerNorm takes each component's mean
        off before, RMS norm does not. Weight and bias of a norm are left out: by `fold_ln` they belong to the weights
        that read it. Without normalization the components come back as they are.

        Args:
            residual_stack: The components, at the positions of `pos_slice` only.
            layer: Which layer reads them; None, -1 and ``n_layers`` mean the unembedding.
            mlp_input: The layer's MLP reads them, not its attention.
            pos_slice: The positions that the components are of.
            batch_slice: The rows of the batch to take, of scale and components.
            has_batch_dim: The components have all rows, so that rows have to be taken; otherwise they have been.
            recompute_ln: Each component is a residual stream of its own, as in the logit lens: the whole norm, its
                weight and bias included, with a scale of that component's.
        """
        if has_batch_dim:
            residual_stack = as_slice(batch_slice).apply(residual_stack, dim=1)
        if not recompute_ln or self._norm_before(self.layer_of(layer, mlp_input), mlp_input) is None:
            return self.norm_before(layer, mlp_input, pos_slice, batch_slice)(residual_stack)
        flat = residual_stack.reshape(1, -1, residual_stack.shape[-1])
        normalized: Tensor = self._norm_module(self.layer_of(layer, mlp_input), mlp_input)(flat)
        return normalized.view(residual_stack.shape)

    def norm_before(
        self,
        layer: SupportsIndex | None,
        mlp_input: bool = False,
        pos_slice: Slice | SliceInput = None,
        batch_slice: Slice | SliceInput = None,
    ) -> FrozenNorm:
        """Returns the norm before a layer, with the scale it had in the run, without its weight and bias.

        The arguments are those of `apply_ln_to_stack`.
        """
        found = self.layer_of(layer, mlp_input)
        norm = self._norm_before(found, mlp_input)
        if norm is None:
            return FrozenNorm()
        prefix = "" if found == self.model.cfg.n_layers else f"blocks.{found}."
        return FrozenNorm(norm.centers, self._scale(prefix + norm.name, pos_slice, batch_slice))

    def norm_after(self, layer: int, branch: str, pos_slice: Slice | SliceInput = None) -> FrozenNorm:
        """Returns what stands between a branch, "attn" or "mlp", and the residual stream: mostly nothing."""
        record = anatomy.layer_of(self.model.cfg, layer).branch(branch)
        found = FrozenNorm() if record.writes is None else self._frozen(layer, record.writes, pos_slice)
        return replace(
            found, factor=record.multiplier, bias=None if found.bias is None else found.bias * record.multiplier
        )

    def closings(
        self, layer: int, branch: str | None, last: int, mlp_input: bool, pos_slice: Slice | SliceInput = None
    ) -> list[FrozenNorm]:
        """Returns the norms of the stream that what a branch adds goes through on its way to a reader, in order.

        Only models whose norms stand behind the sums ("post") have any.

        Args:
            layer: The layer of the branch.
            branch: "attn" or "mlp"; None for what the stream begins with.
            last: The layer that reads.
            mlp_input: Its MLP reads.
            pos_slice: The positions to take.
        """
        out: list[FrozenNorm] = []
        for record in anatomy.layers(self.model.cfg)[layer : last + mlp_input]:
            for one in record.branches:
                is_before = record.index == layer and branch == "mlp" and one.name == "attn"
                is_beyond = record.index == last and one.name == "mlp"
                if one.closes is not None and not is_before and not is_beyond:
                    out.append(self._frozen(record.index, one.closes, pos_slice))
        return out

    def _frozen(self, layer: int, norm: anatomy.Norm, pos_slice: Slice | SliceInput) -> FrozenNorm:
        """Returns a norm of a block that keeps its weight and bias, whether other norms are folded or not."""
        module = self.model.blocks[layer].get_submodule(norm.name)
        scale = self._scale(f"blocks.{layer}.{norm.name}", pos_slice)
        weight = (module.w + norm.offset if norm.offset else module.w) if norm.has_weight else None
        return FrozenNorm(norm.centers, scale, weight, bias=module.b if norm.has_bias else None)

    def _norm_before(self, layer: int, mlp_input: bool) -> anatomy.Norm | None:
        """Returns the norm that a layer's branch reads the stream through; ``n_layers`` is the unembedding."""
        if layer == self.model.cfg.n_layers:
            return anatomy.final_norm_of(self.model.cfg)
        return anatomy.layer_of(self.model.cfg, layer).branch("mlp" if mlp_input else "attn").reads

    def _norm_module(self, layer: int, mlp_input: bool) -> Any:
        if layer == self.model.cfg.n_layers:
            return self.model.ln_final
        return self.model.blocks[layer].ln2 if mlp_input else self.model.blocks[layer].ln1

    def _scale(self, place: str, pos_slice: Slice | SliceInput, batch_slice: Slice | SliceInput = None) -> Tensor:
        scale = self[f"{place}.hook_scale"]
        if scale.ndim > 2 + self.has_batch_dim:
            # With an input for each head (use_split_qkv_input, use_attn_in) there is a scale for each, too.
            if not torch.equal(scale, scale[..., :1, :].expand_as(scale)):
                raise ValueError(f"{place} had another scale for each head: there is no one norm to apply")
            scale = scale[..., 0, :]
        scale = as_slice(pos_slice).apply(scale, dim=-2)
        return as_slice(batch_slice).apply(scale, dim=0) if self.has_batch_dim else scale
