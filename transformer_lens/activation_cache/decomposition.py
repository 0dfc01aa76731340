"""The residual stream as heads, neurons, embeddings and biases."""

from typing import SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

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
        ``"0_mlp_out"``; ``"embed"``; ``"pos_embed"``; ``"bias"``, the sum of all biases not counted so far.

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
        if not self.model.cfg.attn_only:
            if expand_neurons:
                parts += self.neuron_parts(last, pos_slice)
            else:
                parts += [
                    self.part_at(f"{index}_mlp_out", f"blocks.{index}.hook_mlp_out", pos_slice) for index in range(last)
                ]
        parts += self.embedding_parts(pos_slice)
        n_mlps = last if expand_neurons and not self.model.cfg.attn_only else 0
        parts.append(Part(["bias"], lambda: self._biases(n_attentions, n_mlps, pos_slice)))
        norm = self.norm_before(last, mlp_input, pos_slice) if apply_ln else FrozenNorm()
        stack, labels = self.stack_parts(parts, norm, pos_slice, onto=project_output_onto)
        return (stack, labels) if return_labels else stack

    def _biases(self, n_attentions: int, n_mlps: int, pos_slice: Slice | SliceInput) -> Tensor:
        like = self._any_residual(pos_slice)
        total = torch.zeros_like(like)
        blocks = self.model.blocks
        written = [("attn", index, blocks[index].attn.b_O) for index in range(n_attentions)]
        written += [("mlp", index, blocks[index].mlp.b_out) for index in range(n_mlps)]
        for branch, index, bias in written:
            norm = self.norm_after(index, branch, pos_slice)
            total = total + norm(bias.to(total.device)[None])
            if norm.centers and norm.weight is not None:
                post = "ln1_post" if branch == "attn" else "ln2_post"
                total = total + blocks[index].get_submodule(post).b.to(total.device)
        return total.unsqueeze(0)
