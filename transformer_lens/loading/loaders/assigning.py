"""Parameters are the results of promises themselves: mapped pages, borrowed tensors, or fresh results."""

from __future__ import annotations

import torch
from torch import Tensor

from transformer_lens.loading.errors import LoadingError
from transformer_lens.loading.loaders.loader import StateDictLoader, compact
from transformer_lens.loading.weights import LazyTensor


class AssigningLoader(StateDictLoader):
    """Copies nothing: a parameter is an alias of what its promise makes."""

    copies = False

    def keep(self, promise: LazyTensor) -> Tensor:
        """Keeps one promise.

        Raises:
            LoadingError: The tensor cannot be a parameter.
        """
        tensor = promise.make()
        if tensor.is_inference() and not torch.is_inference_mode_enabled():
            raise LoadingError(
                f"{promise.origin.key} of {promise.origin.container or 'the model'} was made under "
                "torch.inference_mode(), and no parameter can share its memory.\n  Load with load_mode='copy'."
            )
        return compact(promise, tensor)
