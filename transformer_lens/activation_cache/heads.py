"""What each attention head writes to the residual stream."""

import logging
from functools import partial
from typing import SupportsIndex

import torch
from torch import Tensor

from transformer_lens.activation_cache.components import ComponentsMixin, Labelled, Part
from transformer_lens.activation_cache.mapping import as_slice
from transformer_lens.activation_cache.norms import FrozenNorm
from transformer_lens.components.matrix_owner import numbers_of
from transformer_lens.utilities.slice import Slice, SliceInput

__all__ = ["HeadsMixin"]


class HeadsMixin(ComponentsMixin):
    """Stacks the outputs of heads: ``result[h] = z[h] @ W_O[h]``, so that ``attn_out = sum_h result[h] + b_O``."""

    def compute_head_results(self) -> None:
        """Puts every layer's ``attn.hook_result`` into the cache, as ``use_attn_result`` does during a run.

        They are n_heads times as large as the attention's output; `stack_head_results` does not need them there.
        """
        missing = [index for index in range(self.model.cfg.n_layers) if f"blocks.{index}.attn.hook_result" not in self]
        if not missing:
            logging.getLogger(__name__).warning("the heads' results are in the cache already")
        for index in missing:
            self.cache_dict[f"blocks.{index}.attn.hook_result"] = self._results(index, None).movedim(0, -2)

    def stack_head_results(
        self,
        layer: SupportsIndex = -1,
        return_labels: bool = False,
        incl_remainder: bool = False,
        pos_slice: Slice | SliceInput = None,
        apply_ln: bool = False,
    ) -> Labelled:
        """Stacks what every head wrote to the residual stream before a layer.

        Args:
            layer: The layer; -1 and ``n_layers`` mean the unembedding.
            return_labels: Return labels too, ``"L0H1"``.
            incl_remainder: End with the rest of the stream, so that the sum is the stream.
            pos_slice: The positions to take.
            apply_ln: Apply the norm before `layer` to each component; see `apply_ln_to_stack`.

        Returns:
            ``layer * n_heads`` components, and one with `incl_remainder`, or a pair of them and their labels.
        """
        last = self.layer_of(layer)
        norm = self.norm_before(last, False, pos_slice) if apply_ln else FrozenNorm()
        total = self.residual_before(last, pos_slice) if incl_remainder else None
        parts = self.carried(self.head_parts(last, pos_slice), last, False, pos_slice)
        stack, labels = self.stack_parts(parts, norm, pos_slice, total)
        return (stack, labels) if return_labels else stack

    def head_parts(self, n_layers: int, pos_slice: Slice | SliceInput) -> list[Part]:
        """Returns the heads of the first layers, a part a layer."""
        return [
            Part(
                [f"L{index}H{head}" for head in range(self.model.cfg.n_heads)],
                partial(self._written, index, pos_slice),
                layer=index,
                branch="attn",
            )
            for index in range(n_layers)
        ]

    def _written(self, layer: int, pos_slice: Slice | SliceInput) -> Tensor:
        return self.norm_after(layer, "attn", pos_slice)(self._results(layer, pos_slice))

    def _results(self, layer: int, pos_slice: Slice | SliceInput) -> Tensor:
        """Returns ``[head *batch_and_pos_dims d_model]``, from the cache where it is there."""
        positions, name = as_slice(pos_slice), f"blocks.{layer}.attn.hook_result"
        if name in self:
            return positions.apply(self[name], dim=-3).movedim(-2, 0)
        z = positions.apply(self["z", layer], dim=-3).movedim(-2, 0)
        W_O = numbers_of(self.model.blocks[layer].attn, "W_O").to(z.device)
        return torch.bmm(z.reshape(len(z), -1, z.shape[-1]), W_O).view(*z.shape[:-1], W_O.shape[-1])
