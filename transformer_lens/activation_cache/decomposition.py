"""The residual stream as heads, neurons, embeddings and biases."""

from collections.abc import Sequence
from typing import SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

from transformer_lens import anatomy
from transformer_lens.activation_cache.components import Part
from transformer_lens.activation_cache.heads import HeadsMixin
from transformer_lens.activation_cache.neurons import Directions, NeuronsMixin
from transformer_lens.activation_cache.norms import FrozenNorm
from transformer_lens.activation_cache.residual import ResidualMixin
from transformer_lens.utilities.slice import Slice, SliceInput

__all__ = ["DecompositionMixin"]


class DecompositionMixin(ResidualMixin, HeadsMixin, NeuronsMixin):
    """Takes the residual stream apart as far as it goes."""

    def get_full_resid_decomposition(
        self,
        layer: SupportsIndex | None = None,
        mlp_input: bool = False,
        expand_neurons: bool = True,
        apply_ln: bool = False,
        pos_slice: Slice | SliceInput = None,
        return_labels: bool = False,
        project_output_onto: Directions | None = None,
    ) -> Float[Tensor, "num_components ..."] | tuple[Float[Tensor, "num_components ..."], list[str]]:
        """Stacks everything that was written to the residual stream before a layer; the sum is the stream.

        In this order: every head of every layer, ``"L0H1"``; every neuron, ``"L0N1"``, or every MLP's output,
        ``"0_mlp_out"``, which stands for the neurons of a mixture of experts too; ``"embed"``; ``"pos_embed"``;
        ``"bias"``, the sum of all biases not counted so far.

        Args:
            layer: The layer that reads the stream; None, -1 and ``n_layers`` mean the unembedding.
            mlp_input: Its MLP reads, so that its attention counts too, except in parallel blocks.
            expand_neurons: Every neuron is a component, not every MLP.
            apply_ln: Apply the norm before `layer` to each component; see `apply_ln_to_stack`.
            pos_slice: The positions to take.
            return_labels: Return the labels too.
            project_output_onto: Directions to project each component onto, after the norm. Neurons are then never
                expanded to d_model.

        Returns:
            ``[num_components *batch_and_pos_dims d_model]``, or a pair of it and its labels. Projected,
            ``num_outputs`` stands for d_model, and nothing for a single direction.
        """
        last = self.layer_of(layer, mlp_input)
        n_attentions = last + self._mlp_reads_attention(mlp_input)
        parts = self.head_parts(n_attentions, pos_slice)
        records = anatomy.layers(self.model.cfg)[:last]
        has_mlps = [record for record in records if record.mlp is not None]
        expanded = [record for record in has_mlps if expand_neurons and record.mlp.writes_by_one_matrix]
        for record in has_mlps:
            if record in expanded:
                parts += self.neuron_parts([record.index], pos_slice)
            else:
                parts.append(self._written_by(record.index, "mlp", pos_slice))
        parts += self.embedding_parts(pos_slice)
        written = [("attn", index) for index in range(n_attentions)]
        written += [("mlp", record.index) for record in expanded]
        parts = self.carried(parts, last, mlp_input, pos_slice)
        parts.append(Part(["bias"], lambda: self._biases(written, last, mlp_input, pos_slice)))
        norm = self.norm_before(last, mlp_input, pos_slice) if apply_ln else FrozenNorm()
        stack, labels = self.stack_parts(parts, norm, pos_slice, onto=project_output_onto)
        return (stack, labels) if return_labels else stack

    def _biases(
        self, written: Sequence[tuple[str, int]], last: int, mlp_input: bool, pos_slice: Slice | SliceInput
    ) -> Tensor:
        """Returns what the biases of branches, and of the norms around them, have become where the stream is read."""
        total = torch.zeros_like(self._any_residual(pos_slice)).unsqueeze(0)
        for branch, index in written:
            block = self.model.blocks[index]
            bias = block.attn.b_O if branch == "attn" else block.mlp.b_out
            norm = self.norm_after(index, branch, pos_slice)
            added = norm(bias.to(total.device)[None])
            if norm.bias is not None:
                added = added + norm.bias.to(total.device)
            for closing in self.closings(index, branch, last, mlp_input, pos_slice):
                added = closing(added)
            total = total + added
        for part in self.closing_biases(last, mlp_input, pos_slice):
            total = total + part.make()
        return total
