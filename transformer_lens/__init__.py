"""Transformers whose every activation has a name and can be read or replaced.

The names below are imported eagerly: ``transformer_lens.HookedTransformer`` is a class as an attribute and a module
as an import path, and an attribute found lazily would turn into the module after its first import.
"""

from transformer_lens import (
    components,
    evals,
    factories,
    head_detector,
    loading,
    patching,
    train,
    utilities,
    utils,
)
from transformer_lens.ActivationCache import ActivationCache
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.cache.key_value_cache_entry import TransformerLensKeyValueCacheEntry
from transformer_lens.FactoredMatrix import FactoredMatrix
from transformer_lens.hook_points import HookPoint
from transformer_lens.HookedRootModule import HookedRootModule
from transformer_lens.HookedTransformer import HookedTransformer
from transformer_lens.HookedTransformerConfig import HookedTransformerConfig
from transformer_lens.loading.report import LoadReport
from transformer_lens.SVDInterpreter import SVDInterpreter
from transformer_lens.utilities.left_out import refusing

EasyTransformer = HookedTransformer
EasyTransformerConfig = HookedTransformerConfig
HookedTransformerKeyValueCache = TransformerLensKeyValueCache
HookedTransformerKeyValueCacheEntry = TransformerLensKeyValueCacheEntry
EasyTransformerKeyValueCache = TransformerLensKeyValueCache
EasyTransformerKeyValueCacheEntry = TransformerLensKeyValueCacheEntry

__version__ = "3.10.0"

__all__ = [
    "ActivationCache",
    "EasyTransformer",
    "EasyTransformerConfig",
    "EasyTransformerKeyValueCache",
    "EasyTransformerKeyValueCacheEntry",
    "FactoredMatrix",
    "HookPoint",
    "HookedRootModule",
    "HookedTransformer",
    "HookedTransformerConfig",
    "HookedTransformerKeyValueCache",
    "HookedTransformerKeyValueCacheEntry",
    "LoadReport",
    "SVDInterpreter",
    "TransformerLensKeyValueCache",
    "TransformerLensKeyValueCacheEntry",
    "__version__",
    "components",
    "evals",
    "factories",
    "head_detector",
    "loading",
    "patching",
    "train",
    "utilities",
    "utils",
]

__getattr__ = refusing(__name__)
