"""Processing: pure functions from weights to weights."""

from transformer_lens.loading.processing.cast import cast
from transformer_lens.loading.processing.center_unembed import center_unembed
from transformer_lens.loading.processing.center_writing_weights import center_writing_weights
from transformer_lens.loading.processing.flags import Flags
from transformer_lens.loading.processing.fold_layer_norm import fold_layer_norm
from transformer_lens.loading.processing.fold_value_biases import fold_value_biases
from transformer_lens.loading.processing.plan import Plan, apply, plan
from transformer_lens.loading.processing.refactor_attention import refactor_attention

__all__ = [
    "Flags",
    "Plan",
    "apply",
    "cast",
    "center_unembed",
    "center_writing_weights",
    "fold_layer_norm",
    "fold_value_biases",
    "plan",
    "refactor_attention",
]
