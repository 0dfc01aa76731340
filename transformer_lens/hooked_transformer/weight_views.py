"""The weights of all layers at once, and what follows from them alone."""

from typing import SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

from transformer_lens import anatomy
from transformer_lens.components.matrix_owner import numbers_of, parameter_count
from transformer_lens.FactoredMatrix import FactoredMatrix
from transformer_lens.hooked_transformer.input_error import InputError
from transformer_lens.hooked_transformer.parts import ModelParts
from transformer_lens.utilities.indices import as_index
from transformer_lens.utilities.matrix import composition_scores


class WeightViewsMixin(ModelParts):
    """Gives the weights under one name for all layers.

    What has a layer axis is a stack, made anew at each call: writing into it changes no parameter. Under
    grouped-query attention keys and values are repeated, so that heads match those of queries.
    """

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab_out"]:
        """The unembedding, the parameter itself; dequantized if it is packed."""
        return numbers_of(self.unembed, "W_U")

    @property
    def b_U(self) -> Float[Tensor, "d_vocab_out"]:
        """The bias of the logits, the parameter itself."""
        return self.unembed.b_U

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:
        """The token embedding: the parameter itself, or ``embed.W_E`` times ``cfg.embedding_multiplier``, made anew."""
        multiplier = anatomy.embedding_of(self.cfg).multiplier
        return self.embed.W_E if multiplier == 1.0 else self.embed.W_E * self.embed.W_E.new_tensor(multiplier)

    @property
    def W_pos(self) -> Float[Tensor, "n_ctx d_model"]:
        """The embedding of positions, the parameter itself; absent from models with rotary positions or ALiBi."""
        return self.pos_embed.W_pos

    @property
    def W_E_pos(self) -> Float[Tensor, "d_vocab_and_n_ctx d_model"]:
        """Token embeddings and, below them, those of positions: the whole input of the first block."""
        return torch.cat([self.W_E, self.W_pos], dim=0)

    @property
    def W_K(self) -> Float[Tensor, "n_layers n_heads d_model d_head"]:
        """The key weights of every head."""
        return self._of_layers("attn.W_K")

    @property
    def W_Q(self) -> Float[Tensor, "n_layers n_heads d_model d_head"]:
        """The query weights of every head."""
        return self._of_layers("attn.W_Q")

    @property
    def W_V(self) -> Float[Tensor, "n_layers n_heads d_model d_head"]:
        """The value weights of every head."""
        return self._of_layers("attn.W_V")

    @property
    def W_O(self) -> Float[Tensor, "n_layers n_heads d_head d_model"]:
        """The output weights of every head."""
        return self._of_layers("attn.W_O")

    @property
    def W_in(self) -> Float[Tensor, "n_layers d_model d_mlp"]:
        """The input weights of every MLP."""
        return self._of_layers("mlp.W_in")

    @property
    def W_gate(self) -> Float[Tensor, "n_layers d_model d_mlp"] | None:
        """The gate weights of every MLP, or None where MLPs have no gate."""
        computes = [layer.computes for layer in anatomy.layers(self.cfg)]
        return self._of_layers("mlp.W_gate") if any(one is not None and one.is_gated for one in computes) else None

    @property
    def W_out(self) -> Float[Tensor, "n_layers d_mlp d_model"]:
        """The output weights of every MLP."""
        return self._of_layers("mlp.W_out")

    @property
    def b_K(self) -> Float[Tensor, "n_layers n_heads d_head"]:
        """The key biases."""
        return self._of_layers("attn.b_K")

    @property
    def b_Q(self) -> Float[Tensor, "n_layers n_heads d_head"]:
        """The query biases."""
        return self._of_layers("attn.b_Q")

    @property
    def b_V(self) -> Float[Tensor, "n_layers n_heads d_head"]:
        """The value biases."""
        return self._of_layers("attn.b_V")

    @property
    def b_O(self) -> Float[Tensor, "n_layers d_model"]:
        """The output biases of attention."""
        return self._of_layers("attn.b_O")

    @property
    def b_in(self) -> Float[Tensor, "n_layers d_mlp"]:
        """The input biases of the MLPs."""
        return self._of_layers("mlp.b_in")

    @property
    def b_out(self) -> Float[Tensor, "n_layers d_model"]:
        """The output biases of the MLPs."""
        return self._of_layers("mlp.b_out")

    @property
    def QK(self) -> FactoredMatrix:
        """What each head's scores are of: ``W_Q @ W_K^T``, of shape ``[n_layers n_heads d_model d_model]``."""
        return FactoredMatrix(self.W_Q, self.W_K.transpose(-2, -1))

    @property
    def OV(self) -> FactoredMatrix:
        """What each head moves: ``W_V @ W_O``, of shape ``[n_layers n_heads d_model d_model]``."""
        return FactoredMatrix(self.W_V, self.W_O)

    @property
    def n_params_total(self) -> int:
        """Number of parameters, embeddings, norms and biases included; ``cfg.n_params`` counts those of blocks only."""
        return parameter_count(self)

    def accumulated_bias(
        self, layer: SupportsIndex, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, "d_model"]:
        """Sums the biases that the blocks before a layer add to the residual stream.

        Args:
            layer: Blocks ``0 … layer - 1`` count.
            mlp_input: Whether the attention of block `layer` counts too, as it does for the input of its MLP.
            include_mlp_biases: Whether MLPs count.

        Raises:
            InputError: If there are not so many blocks, or `mlp_input` asks for one that is not there.
        """
        layer = as_index(layer, "layer")
        if not 0 <= layer <= self.cfg.n_layers:
            raise InputError(f"layer is {layer}; it can be 0 to {self.cfg.n_layers}, the input of the unembedding.")
        if mlp_input and layer >= self.cfg.n_layers:
            raise InputError(f"There is no MLP in layer {layer}: the last layer is {self.cfg.n_layers - 1}.")
        total = torch.zeros(self.cfg.d_model, dtype=self.cfg.dtype, device=self.device_of_block(0))
        for record in anatomy.layers(self.cfg)[:layer]:
            block = self.blocks[record.index]
            total = total + block.attn.b_O.to(total.device)
            if include_mlp_biases and record.has("mlp.b_out"):
                total = total + block.mlp.b_out.to(total.device)
        if mlp_input:
            total = total + self.blocks[layer].attn.b_O.to(total.device)
        return total

    def all_composition_scores(self, mode: str) -> Float[Tensor, "n_layers n_heads n_layers n_heads"]:
        """Scores how much each later head reads of what each earlier head writes.

        The score is ``|OV_left X_right| / (|OV_left| |X_right|)`` in Frobenius norms, where X is QK for "Q", its
        transpose for "K", and OV for "V" ("A Mathematical Framework for Transformer Circuits", Elhage et al. 2021);
        0 where the right head is not in a later layer.

        Args:
            mode: "Q", "K" or "V".

        Returns:
            Scores; the first two axes are the head that writes, the last two the one that reads.

        Raises:
            InputError: If `mode` is none of these.
        """
        if mode not in ("Q", "K", "V"):
            raise InputError(f"mode is {mode!r}; it can be 'Q', 'K' or 'V'.")
        right = self.OV if mode == "V" else self.QK if mode == "Q" else self.QK.T
        scores = composition_scores(self.OV, right, broadcast_dims=True)
        layers = torch.arange(self.cfg.n_layers, device=scores.device)
        later = layers[:, None, None, None] < layers[None, None, :, None]
        return torch.where(later, scores, torch.zeros_like(scores))

    def all_head_labels(self) -> list[str]:
        """Names every head, ``L0H0``, ``L0H1`` and so on, in the order of flattened ``[layer head]`` axes."""
        return [f"L{layer}H{head}" for layer in range(self.cfg.n_layers) for head in range(self.cfg.n_heads)]

    def _of_layers(self, path: str) -> Tensor:
        part, name = path.split(".")
        layers = anatomy.layers(self.cfg)
        if part == "mlp" and all(layer.mlp is None for layer in layers):
            raise AttributeError(f"blocks that only attend have no {name}")
        without = [layer.index for layer in layers if not layer.has(path)]
        if without:
            raise InputError(
                f"{name} is no one matrix in layers {', '.join(map(str, without))}: there are no stacks of layers that "
                f"differ. model.blocks[layer].{part} has the weights of each."
            )
        weights = [numbers_of(getattr(block, part), name) for block in self.blocks]
        return torch.stack([weight.to(weights[0].device) for weight in weights])
