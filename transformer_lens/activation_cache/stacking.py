"""One activation of all layers."""

from typing import SupportsIndex

import torch
from jaxtyping import Shaped
from torch import Tensor

from transformer_lens.activation_cache.mapping import CacheMapping

__all__ = ["StackingMixin"]


class StackingMixin(CacheMapping):
    """Stacks an activation over layers."""

    def stack_activation(
        self, activation_name: str, layer: SupportsIndex = -1, sublayer_type: str | None = None
    ) -> Shaped[Tensor, "layers_covered ..."]:
        """Stacks one activation of every layer before a given one.

        Args:
            activation_name: Its short name, such as ``"pattern"``.
            layer: The first layer left out; -1 means none is.
            sublayer_type: The part of the block, where the name does not tell: ``"ln1"``.
        """
        layers = range(self.layer_of(layer))
        values = [self[activation_name, index, sublayer_type] for index in layers]
        if not values:
            first = self[activation_name, 0, sublayer_type]
            return first.new_empty((0, *first.shape))
        return torch.stack([value.to(values[0].device) for value in values])
