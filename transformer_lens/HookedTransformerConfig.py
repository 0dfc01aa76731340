"""The import path of upstream 2 for `HookedTransformerConfig`."""

from transformer_lens import utilities as utils
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.utilities.activation_functions import SUPPORTED_ACTIVATIONS

__all__ = ["SUPPORTED_ACTIVATIONS", "HookedTransformerConfig", "utils"]
