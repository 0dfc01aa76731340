"""What each head wrote."""

from __future__ import annotations

import logging

import torch
from jaxtyping import Float
from torch import Tensor

from transformer_lens.activation_cache.mapping import as_slice
from transformer_lens.activation_cache.residual import ResidualMixin, Stack
from transformer_lens.components.linear import each_out_of_its_head
from transformer_lens.utilities.slice import Slice, SliceInput


class HeadsMixin(ResidualMixin):
    """Results of heads, and activations of all layers in one tensor."""

    def compute_head_results(self) -> None:
        """Adds what each head wrote (`hook_result`) to the cache, if it is not there."""
        if "blocks.0.attn.hook_result" in self.cache_dict:
            logging.getLogger(__name__).warning("The results of heads are in the cache already.")
            return
        for layer in range(self.model.cfg.n_layers):
            z, weight = self["z", layer], self.model.blocks[layer].attn.W_O
            batched = z if z.ndim == 4 else z.unsqueeze(0)
            result = each_out_of_its_head(batched.to(weight.dtype), weight)
            self.cache_dict[f"blocks.{layer}.attn.hook_result"] = result if z.ndim == 4 else result[0]

    def stack_head_results(
        self,
        layer: int = -1,
        return_labels: bool = False,
        incl_remainder: bool = False,
        pos_slice: Slice | SliceInput = None,
        apply_ln: bool = False,
    ) -> Stack | tuple[Stack, list[str]]:
        """Returns what every head of the layers before `layer` wrote, stacked.

        Args:
            layer: None and -1 mean the end.
            return_labels: Whether labels ("L0H0", …) are returned too.
            incl_remainder: Whether the rest of the stream is the last entry, so that the sum is the stream.
            pos_slice: Positions to take.
            apply_ln: Whether the norm at `layer` is applied to each.
        """
        layers = self._layers(layer)
        pos_slice = as_slice(pos_slice)
        if "blocks.0.attn.hook_result" not in self.cache_dict:
            self.compute_head_results()
        each = [pos_slice.apply(self["result", index], dim=-3) for index in range(layers)]
        labels = [f"L{index}H{head}" for index in range(layers) for head in range(self.model.cfg.n_heads)]
        if each:
            stack = torch.cat(each, dim=-2).movedim(-2, 0)
        else:
            stack = self._empty_stack(pos_slice)
        if incl_remainder:
            stack = torch.cat([stack, (self._stream_before(layers, pos_slice) - stack.sum(dim=0))[None]])
            labels.append("remainder")
        if apply_ln:
            stack = self.apply_ln_to_stack(stack, layers, pos_slice=pos_slice)
        return (stack, labels) if return_labels else stack

    def stack_activation(
        self, activation_name: str, layer: int = -1, sublayer_type: str | None = None
    ) -> Float[Tensor, "layers_covered ..."]:
        """Returns an activation of the layers before `layer`, stacked."""
        return torch.stack([self[activation_name, index, sublayer_type] for index in range(self._layers(layer))], dim=0)

    def _stream_before(self, layers: int, pos_slice: Slice) -> Tensor:
        stream = self["resid_post", layers - 1] if layers > 0 else self["resid_pre", 0]
        return pos_slice.apply(stream, dim=-2)

    def _empty_stack(self, pos_slice: Slice) -> Tensor:
        like = pos_slice.apply(self["hook_embed"] if self.has_embed else self["resid_pre", 0], dim=-2)
        return torch.zeros(0, *like.shape, dtype=like.dtype, device=like.device)
