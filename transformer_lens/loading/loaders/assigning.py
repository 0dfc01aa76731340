"""Parameters are the results of promises themselves: mapped pages, borrowed tensors, or fresh results."""

from __future__ import annotations

from torch import nn

from transformer_lens.loading.loaders.loader import StateDictLoader, as_parameter
from transformer_lens.loading.weights import LazyTensor


class AssigningLoader(StateDictLoader):
    """Copies nothing: a parameter is an alias of what its promise makes."""

    def parameter(self, promise: LazyTensor) -> nn.Parameter:
        """Keeps one promise."""
        return as_parameter(promise.make())
