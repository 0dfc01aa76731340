"""Which activation a config asks for."""

from collections.abc import Callable

from torch import Tensor

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.utilities.activation_functions import SUPPORTED_ACTIVATIONS, XIELU, ActivationFunction  # noqa: F401


class ActivationFunctionFactory:
    """Picks activations."""

    @staticmethod
    def pick_activation_function(cfg: HookedTransformerConfig) -> Callable[..., Tensor]:
        """Returns the activation named by ``cfg.act_fn``.

        Raises:
            ValueError: There is no such activation, or none is named.
        """
        if cfg.act_fn is None:
            raise ValueError("act_fn is None: a model with MLPs needs an activation.")
        if cfg.act_fn not in SUPPORTED_ACTIVATIONS:
            raise ValueError(f"act_fn = {cfg.act_fn!r} is not one of {sorted(SUPPORTED_ACTIVATIONS)}.")
        return SUPPORTED_ACTIVATIONS[cfg.act_fn]
