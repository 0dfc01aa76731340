"""What each MLP neuron writes to the residual stream."""

from collections.abc import Sequence
from functools import partial
from typing import SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

from transformer_lens import anatomy
from transformer_lens.activation_cache.components import ComponentsMixin, Part
from transformer_lens.activation_cache.mapping import as_slice
from transformer_lens.activation_cache.norms import FrozenNorm
from transformer_lens.components.matrix_owner import numbers_of
from transformer_lens.utilities.indices import as_layer
from transformer_lens.utilities.slice import Slice, SliceInput

__all__ = ["NeuronsMixin"]

Directions = Float[Tensor, "d_model"] | Float[Tensor, "d_model num_outputs"]


class NeuronsMixin(ComponentsMixin):
    """Stacks the outputs of neurons: ``result[n] = post[n] * W_out[n]``, so that ``mlp_out = sum_n result[n] + b_out``.

    Each neuron's output is d_model times as large as its activation. Projected onto directions, it never comes to
    exist: ``result[n] @ p = post[n] * (W_out[n] @ p)``.
    """

    def get_neuron_results(
        self,
        layer: SupportsIndex,
        neuron_slice: Slice | SliceInput = None,
        pos_slice: Slice | SliceInput = None,
        project_output_onto: Directions | None = None,
    ) -> Float[Tensor, "..."]:
        """Computes what neurons of one layer write.

        Args:
            layer: Their layer; negative ones count from the end.
            neuron_slice: The neurons to take.
            pos_slice: The positions to take.
            project_output_onto: Directions to project onto.

        Returns:
            ``[*batch_and_pos_dims num_neurons d_model]``, without the axis of neurons if `neuron_slice` is an int.
            Projected, ``num_outputs`` stands for d_model, and nothing for a single direction.
        """
        layer = as_layer(layer, self.model.cfg.n_layers)
        self._check_neurons(layer)
        post = as_slice(pos_slice).apply(self["post", layer], dim=-2)
        post = as_slice(neuron_slice).apply(post, dim=-1)
        weights = as_slice(neuron_slice).apply(numbers_of(self.model.blocks[layer].mlp, "W_out").to(post.device), dim=0)
        if project_output_onto is not None:
            weights = _projected(weights, project_output_onto)
            if project_output_onto.ndim == 1:
                return post * weights
        return post[..., None] * weights

    def stack_neuron_results(
        self,
        layer: SupportsIndex,
        pos_slice: Slice | SliceInput = None,
        neuron_slice: Slice | SliceInput = None,
        return_labels: bool = False,
        incl_remainder: bool = False,
        apply_ln: bool = False,
        project_output_onto: Directions | None = None,
    ) -> Float[Tensor, "num_components ..."] | tuple[Float[Tensor, "num_components ..."], list[str]]:
        """Stacks what every neuron wrote to the residual stream before a layer.

        Args:
            layer: The layer; -1 and ``n_layers`` mean the unembedding.
            pos_slice: The positions to take.
            neuron_slice: The neurons to take of each layer.
            return_labels: Return labels too, ``"L0N1"``.
            incl_remainder: End with the rest of the stream, so that the sum is the stream.
            apply_ln: Apply the norm before `layer` to each component; see `apply_ln_to_stack`.
            project_output_onto: Directions to project each component onto, after the norm.

        Returns:
            ``[num_components *batch_and_pos_dims d_model]``, or a pair of it and its labels. Projected,
            ``num_outputs`` stands for d_model, and nothing for a single direction.
        """
        last = self.layer_of(layer)
        norm = self.norm_before(last, False, pos_slice) if apply_ln else FrozenNorm()
        total = self.residual_before(last, pos_slice) if incl_remainder else None
        parts = self.carried(self.neuron_parts(range(last), pos_slice, neuron_slice), last, False, pos_slice)
        stack, labels = self.stack_parts(parts, norm, pos_slice, total, project_output_onto)
        return (stack, labels) if return_labels else stack

    def neuron_parts(
        self, layers: Sequence[int], pos_slice: Slice | SliceInput, neuron_slice: Slice | SliceInput = None
    ) -> list[Part]:
        """Returns the neurons of layers, a part a layer."""
        neurons = Slice.unwrap(neuron_slice)
        if neurons.mode == "int":
            neurons = Slice(neurons.indices())
        indices = neurons.indices(self.model.cfg.d_mlp) if layers else ()
        for index in layers:
            self._check_neurons(index)
        return [
            Part(
                [f"L{index}N{neuron}" for neuron in indices],
                partial(self._written_by_neurons, index, pos_slice, neurons),
                partial(self._projected_neurons, index, pos_slice, neurons),
                layer=index,
                branch="mlp",
            )
            for index in layers
        ]

    def _check_neurons(self, layer: int) -> None:
        """Refuses a layer whose neurons are of several experts: which of them run differs from token to token."""
        record = anatomy.layers(self.model.cfg)[layer]
        if record.mlp is not None and not record.mlp.writes_by_one_matrix:
            raise ValueError(
                f"layer {record.index} is a mixture of experts: it has no one hook_post and no one W_out.\n"
                "  Take its output as a whole (expand_neurons=False, decompose_resid), or set cfg.use_expert_hooks and "
                "read the experts' own hook_post."
            )

    def _written_by_neurons(self, layer: int, pos_slice: Slice | SliceInput, neurons: Slice) -> Tensor:
        post, W_out = self._post_and_weights(layer, pos_slice, neurons)
        spread = W_out.reshape(len(W_out), *[1] * (post.ndim - 1), W_out.shape[-1])
        return self.norm_after(layer, "mlp", pos_slice)(post[..., None] * spread)

    def _projected_neurons(
        self, layer: int, pos_slice: Slice | SliceInput, neurons: Slice, directions: Tensor
    ) -> Tensor:
        post, W_out = self._post_and_weights(layer, pos_slice, neurons)
        norm = self.norm_after(layer, "mlp", pos_slice)
        weights = _projected(W_out, norm.pull_back(directions).transpose(0, -1))
        spread = weights.reshape(len(weights), *[1] * (post.ndim - 1), *weights.shape[1:])
        is_single = directions.ndim == 1
        return norm.divide((post if is_single else post[..., None]) * spread, squeezed=is_single)

    def _post_and_weights(
        self, layer: int, pos_slice: Slice | SliceInput, neurons: Slice
    ) -> tuple[Float[Tensor, "neuron *batch_and_pos_dims"], Float[Tensor, "neuron d_model"]]:
        post = as_slice(pos_slice).apply(self["post", layer], dim=-2)
        W_out = neurons.apply(numbers_of(self.model.blocks[layer].mlp, "W_out").to(post.device), dim=0)
        return neurons.apply(post, dim=-1).movedim(-1, 0), W_out


def _projected(weights: Tensor, onto: Tensor) -> Tensor:
    dtype = torch.promote_types(weights.dtype, onto.dtype)
    return weights.to(dtype) @ onto.to(weights.device, dtype)
