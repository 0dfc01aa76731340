"""Loaders: how promises become the parameters of a module."""

from transformer_lens.loading.loaders.assigning import AssigningLoader
from transformer_lens.loading.loaders.choose import Choice, can_assign, choose, warn_of_fallback
from transformer_lens.loading.loaders.copying import CopyingLoader
from transformer_lens.loading.loaders.loader import StateDictLoader, replace_parameters

__all__ = [
    "AssigningLoader",
    "Choice",
    "CopyingLoader",
    "StateDictLoader",
    "can_assign",
    "choose",
    "replace_parameters",
    "warn_of_fallback",
]
