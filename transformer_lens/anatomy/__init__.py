"""What a model is made of: records, and nothing that computes.

A config is flat, because clients construct and read it. This package alone reads the fields that shape a block, and
says in records what they mean, layer by layer: which norms stand where, what reads and what writes the residual
stream, which parameters there are. Modules, processing, caches and checks ask the records.
"""

from transformer_lens.anatomy.attention import Attention
from transformer_lens.anatomy.axes import MATRICES, axis_sizes, block_schema, schema
from transformer_lens.anatomy.describe import (
    PER_LAYER_FIELDS,
    absent_traits,
    attention_of,
    embedding_of,
    final_norm_of,
    first_layers,
    has_experts,
    layer_of,
    layers,
    mark_norms_folded,
    mixture_of,
    mlp_of,
    model_of,
    norm_state,
    placement,
    replace_fields,
    unembedding_of,
    with_norms,
)
from transformer_lens.anatomy.hooks import Hook, hooks_of_layer, hooks_of_model
from transformer_lens.anatomy.layer import Branch, Layer
from transformer_lens.anatomy.mixture import Mixture
from transformer_lens.anatomy.mlp import Mlp
from transformer_lens.anatomy.model import Embedding, Model, Unembedding
from transformer_lens.anatomy.norm import Norm
from transformer_lens.anatomy.reader import Reader, Writer
from transformer_lens.anatomy.rotary import Rotary
from transformer_lens.anatomy.router import CORRECTION, Router

__all__ = [
    "CORRECTION",
    "MATRICES",
    "PER_LAYER_FIELDS",
    "Attention",
    "Branch",
    "Embedding",
    "Hook",
    "Layer",
    "Mixture",
    "Mlp",
    "Model",
    "Norm",
    "Reader",
    "Rotary",
    "Router",
    "Unembedding",
    "Writer",
    "absent_traits",
    "attention_of",
    "axis_sizes",
    "block_schema",
    "embedding_of",
    "final_norm_of",
    "first_layers",
    "has_experts",
    "hooks_of_layer",
    "hooks_of_model",
    "layer_of",
    "layers",
    "mark_norms_folded",
    "mixture_of",
    "mlp_of",
    "model_of",
    "norm_state",
    "placement",
    "replace_fields",
    "schema",
    "unembedding_of",
    "with_norms",
]
