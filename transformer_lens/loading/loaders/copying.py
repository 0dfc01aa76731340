"""Parameters own memory that nothing else shares."""

from __future__ import annotations

from torch import nn

from transformer_lens.loading.loaders.loader import StateDictLoader, as_parameter
from transformer_lens.loading.memory.fresh import empty_in_order, order_of
from transformer_lens.loading.weights import Held, LazyTensor


class CopyingLoader(StateDictLoader):
    """Fills each parameter once.

    Results that are fresh already are taken as they are; the rest is copied, and each source is let go before the
    next is made: the peak is the model and one tensor.
    """

    def parameter(self, promise: LazyTensor) -> nn.Parameter:
        """Keeps one promise."""
        source = promise.make()
        if promise.held is Held.FRESH:
            return as_parameter(source)
        own = empty_in_order(source.shape, order_of(source), source.dtype, source.device)
        return as_parameter(own.copy_(source.detach()))
