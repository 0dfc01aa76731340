"""Upstream 3's path of processing."""

from transformer_lens import utilities as utils
from transformer_lens.config.transformer_lens_config import TransformerLensConfig
from transformer_lens.FactoredMatrix import FactoredMatrix
from transformer_lens.loading.process_weights import ProcessWeights
from transformer_lens.utilities.architectures import POST_NORM_ARCHITECTURES
from transformer_lens.utilities.tensors import filter_dict_by_prefix

__all__ = [
    "FactoredMatrix",
    "POST_NORM_ARCHITECTURES",
    "ProcessWeights",
    "TransformerLensConfig",
    "filter_dict_by_prefix",
    "utils",
]
