"""Parameters own memory that nothing else shares."""

from __future__ import annotations

from torch import Tensor

from transformer_lens.loading.loaders.loader import StateDictLoader, compact, copied
from transformer_lens.loading.quantization.promises import owned, repacked
from transformer_lens.loading.weights import Held, LazyTensor


class CopyingLoader(StateDictLoader):
    """Fills each parameter once.

    Results that are fresh already are taken as they are; the rest is copied, and each source is let go before the
    next is made: the peak is the model and one tensor.
    """

    def keep(self, promise: LazyTensor) -> Tensor:
        """Keeps one promise."""
        if promise.packed is not None:
            return promise.make() if promise.held is Held.FRESH else repacked(promise, owned, Held.FRESH).make()
        source = promise.make()
        return compact(promise, source) if promise.held is Held.FRESH else copied(source)
