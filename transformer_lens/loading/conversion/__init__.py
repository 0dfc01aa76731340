"""From the layout of a file to ours: tables read by one function."""

from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView, read_config
from transformer_lens.loading.conversion.convert import Converted, convert
from transformer_lens.loading.conversion.recipes import Choose, Derived, OneOf, Recipe, Stack, Take, When, Zeros

__all__ = [
    "Architecture",
    "Choose",
    "ConfigView",
    "Converted",
    "Derived",
    "OneOf",
    "Recipe",
    "Stack",
    "Take",
    "When",
    "Zeros",
    "convert",
    "read_config",
]
