"""The residual stream: as it accumulates, and as a sum of what was written to it."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from transformer_lens.activation_cache.mapping import CacheMapping, as_slice
from transformer_lens.utilities.slice import Slice, SliceInput

Stack = Float[Tensor, "num_components *batch_and_pos_dims d_model"]


class ResidualMixin(CacheMapping):
    """Decompositions of the residual stream."""

    def accumulated_resid(
        self,
        layer: int | None = None,
        incl_mid: bool = False,
        apply_ln: bool = False,
        pos_slice: Slice | SliceInput = None,
        mlp_input: bool = False,
        return_labels: bool = False,
    ) -> Stack | tuple[Stack, list[str]]:
        """Returns the residual stream before each layer, stacked: the logit lens' input.

        Args:
            layer: The last is the stream before this layer; None and -1 mean the end.
            incl_mid: Whether streams between attention and MLP are among them.
            apply_ln: Whether the norm at `layer` is applied to each.
            pos_slice: Positions to take.
            mlp_input: Whether the stream between attention and MLP of `layer` is the last.
            return_labels: Whether labels ("0_pre", "0_mid", …, "final_post") are returned too.
        """
        layers = self._layers(layer)
        pos_slice = as_slice(pos_slice)
        names: list[tuple[str, int, str]] = []
        for index in range(layers + 1):
            if index == self.model.cfg.n_layers:
                names.append(("resid_post", index - 1, "final_post"))
                continue
            names.append(("resid_pre", index, f"{index}_pre"))
            if (incl_mid and index < layers) or (mlp_input and index == layers):
                names.append(("resid_mid", index, f"{index}_mid"))
        stack = torch.stack([pos_slice.apply(self[name, index], dim=-2) for name, index, _ in names])
        if apply_ln:
            stack = self.apply_ln_to_stack(stack, layers, pos_slice=pos_slice, mlp_input=mlp_input)
        return (stack, [label for _, _, label in names]) if return_labels else stack

    def decompose_resid(
        self,
        layer: int | None = None,
        mlp_input: bool = False,
        mode: Literal["all", "mlp", "attn"] = "all",
        apply_ln: bool = False,
        pos_slice: Slice | SliceInput = None,
        incl_embeds: bool = True,
        return_labels: bool = False,
    ) -> Stack | tuple[Stack, list[str]]:
        """Returns what embeddings, attentions and MLPs wrote; the sum over the stack is the stream before `layer`.

        Args:
            layer: Where; None and -1 mean the end.
            mlp_input: Whether the attention of `layer` itself is among them.
            mode: Which layers' parts: "all", "mlp" or "attn".
            apply_ln: Whether the norm at `layer` is applied to each.
            pos_slice: Positions to take.
            incl_embeds: Whether the embeddings are among them.
            return_labels: Whether labels ("embed", "0_attn_out", "0_mlp_out", …) are returned too.
        """
        layers = self._layers(layer)
        pos_slice = as_slice(pos_slice)
        with_mlp = mode != "attn" and not self.model.cfg.attn_only
        parts: list[Tensor] = []
        labels: list[str] = []
        if incl_embeds:
            if self.has_embed:
                parts.append(self["hook_embed"])
                labels.append("embed")
            if self.has_pos_embed:
                parts.append(self["hook_pos_embed"])
                labels.append("pos_embed")
        for index in range(layers):
            if mode != "mlp":
                parts.append(self["attn_out", index])
                labels.append(f"{index}_attn_out")
            if with_mlp:
                parts.append(self["mlp_out", index])
                labels.append(f"{index}_mlp_out")
        if mlp_input and mode != "mlp" and layers < self.model.cfg.n_layers:
            parts.append(self["attn_out", layers])
            labels.append(f"{layers}_attn_out")
        stack = torch.stack([pos_slice.apply(part, dim=-2) for part in parts])
        if apply_ln:
            stack = self.apply_ln_to_stack(stack, layers, pos_slice=pos_slice, mlp_input=mlp_input)
        return (stack, labels) if return_labels else stack

    def apply_ln_to_stack(
        self,
        residual_stack: Stack,
        layer: int | None = None,
        mlp_input: bool = False,
        pos_slice: Slice | SliceInput = None,
        batch_slice: Slice | SliceInput = None,
        has_batch_dim: bool = True,
        recompute_ln: bool = False,
    ) -> Stack:
        """Divides each component by the scale that the norm at `layer` used for the whole stream.

        The norm is linear once its scale is fixed, so components still add up. Its weight and bias are not applied:
        fold them (``fold_ln=True``) for attributions that add up to logits.

        Args:
            residual_stack: Components, sliced already by `pos_slice`.
            layer: Whose norm; None and -1 mean the final one.
            mlp_input: Whether the norm before the MLP is meant.
            pos_slice: Positions that the stack holds.
            batch_slice: Part of the batch to take.
            has_batch_dim: Whether the stack has a batch axis, behind that of components.
            recompute_ln: Whether each component gets the scale of its own size instead.
        """
        cfg = self.model.cfg
        if cfg.normalization_type not in ("LN", "LNPre", "RMS", "RMSPre"):
            return residual_stack
        layers = self._layers(layer)
        pos_slice, batch_slice = as_slice(pos_slice), as_slice(batch_slice)
        if has_batch_dim:
            residual_stack = batch_slice.apply(residual_stack, dim=1)
        is_final_rms = layers == cfg.n_layers and cfg.final_rms
        if cfg.normalization_type in ("LN", "LNPre") and not is_final_rms:
            residual_stack = residual_stack - residual_stack.mean(dim=-1, keepdim=True)
        if recompute_ln:
            return residual_stack / (residual_stack.pow(2).mean(dim=-1, keepdim=True) + cfg.eps).sqrt()
        norm = "ln_final" if layers == cfg.n_layers else f"blocks.{layers}.ln{2 if mlp_input else 1}"
        scale = pos_slice.apply(self[f"{norm}.hook_scale"], dim=-2)
        if self.has_batch_dim:
            scale = batch_slice.apply(scale)
        return residual_stack / scale
