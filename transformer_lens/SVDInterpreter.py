"""Singular vectors of weights, read as tokens."""

from typing import Any, Literal, SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

from transformer_lens.components.matrix_owner import numbers_of
from transformer_lens.FactoredMatrix import FactoredMatrix
from transformer_lens.HookedTransformer import HookedTransformer
from transformer_lens.utilities.indices import as_index

__all__ = ["FactoredMatrix", "HookedTransformer", "OUTPUT_EMBEDDING", "SVDInterpreter", "VECTOR_TYPES", "VectorType"]

OUTPUT_EMBEDDING = "unembed.W_U"
VECTOR_TYPES = ["OV", "w_in", "w_out"]
VectorType = Literal["OV", "w_in", "w_out"]


class SVDInterpreter:
    """Shows which tokens the directions stand for that weights read from, or write to, the residual stream.

    After Millidge and Black, "The Singular Value Decompositions of Transformer Weight Matrices are Highly
    Interpretable" (2022).

    Attributes:
        model: A `HookedTransformer`.
        cfg: Its config.
        params: Its parameters by name.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.cfg = model.cfg
        self.params = dict(model.named_parameters())

    def get_singular_vectors(
        self,
        vector_type: VectorType,
        layer_index: SupportsIndex,
        num_vectors: int = 10,
        head_index: SupportsIndex | None = None,
    ) -> Float[Tensor, "d_vocab 1 num_vectors"]:
        """Projects the leading singular vectors of a weight onto the vocabulary: ``v @ W_U``.

        The vectors lie in the residual stream. Their signs are arbitrary, and so are directions among equal singular
        values.

        Args:
            vector_type: "OV", what a head writes; "w_in", what an MLP reads, behind its norm's weight where that is
                not folded; "w_out", what an MLP writes.
            layer_index: The layer.
            num_vectors: How many, from the largest singular value on.
            head_index: The head, for "OV".

        Raises:
            AssertionError: There is no such head, layer or type.
            IndexError: The weight has fewer singular vectors.
        """
        layer_index = as_index(layer_index, "layer_index")
        head_index = None if head_index is None else as_index(head_index, "head_index")
        assert vector_type in VECTOR_TYPES, f"vector_type is {vector_type!r}; it can be one of {VECTOR_TYPES}"
        n_layers, n_heads = self.cfg.n_layers, self.cfg.n_heads
        assert 0 <= layer_index < n_layers, f"layer_index is {layer_index}; there are layers 0 to {n_layers - 1}"
        if vector_type == "OV":
            assert head_index is not None, "head_index must be given for OV"
            assert 0 <= head_index < n_heads, f"head_index is {head_index}; there are heads 0 to {n_heads - 1}"
        with torch.no_grad():
            vectors = self._right_singular_vectors(vector_type, layer_index, head_index)
            if num_vectors > vectors.shape[1]:
                raise IndexError(f"num_vectors is {num_vectors}; the weight has {vectors.shape[1]} singular vectors")
            W_U = self.model.W_U.float()
            return (W_U.T @ vectors[:, :num_vectors].to(W_U.device)).unsqueeze(1)

    def _right_singular_vectors(
        self, vector_type: str, layer: int, head: int | None
    ) -> Float[Tensor, "d_model n_vectors"]:
        block = self.model.blocks[layer]
        if vector_type == "OV":
            return FactoredMatrix(
                numbers_of(block.attn, "W_V")[head].float(), numbers_of(block.attn, "W_O")[head].float()
            ).V
        weight = numbers_of(block.mlp, "W_out").float()
        if vector_type == "w_in":
            weight = numbers_of(block.mlp, "W_in").float().T
            norm_weight = f"blocks.{layer}.ln2.w"
            if norm_weight in self.params:
                weight = weight * self.params[norm_weight].float()
        return torch.linalg.svd(weight, full_matrices=False)[2].T
