"""The residual stream, by layers and by what writes to it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, SupportsIndex

import torch
from torch import Tensor

from transformer_lens import anatomy
from transformer_lens.activation_cache.components import ComponentsMixin, Labelled, Part
from transformer_lens.activation_cache.mapping import as_slice
from transformer_lens.activation_cache.norms import FrozenNorm
from transformer_lens.utilities.slice import Slice, SliceInput

__all__ = ["ResidualMixin"]


class ResidualMixin(ComponentsMixin):
    """Stacks residual streams, and the outputs of layers that they are the sums of."""

    def accumulated_resid(
        self,
        layer: SupportsIndex | None = None,
        incl_mid: bool = False,
        apply_ln: bool = False,
        pos_slice: Slice | SliceInput = None,
        mlp_input: bool = False,
        return_labels: bool = False,
    ) -> Labelled:
        """Stacks the residual stream before each layer, up to the input of one (logit lens, nostalgebraist 2020).

        Args:
            layer: The last layer; None, -1 and ``n_layers`` mean the unembedding.
            incl_mid: Also those between attention and MLP.
            apply_ln: Apply the norm before `layer` to each, with that layer's scale; see `apply_ln_to_stack`, which
                with ``recompute_ln=True`` gives each a scale of its own.
            pos_slice: The positions to take.
            mlp_input: End with what the MLP of `layer` reads. In parallel blocks that is what the attention reads, and
                in front of the unembedding, which has no MLP, it makes no difference.
            return_labels: Return labels too: ``"2_pre"``, ``"2_mid"``, ``"final_post"``.

        Returns:
            The streams, or a pair of them and their labels.
        """
        mlp_input = mlp_input and self.layer_of(layer) < self.model.cfg.n_layers
        last = self.layer_of(layer, mlp_input)
        names: dict[str, str] = {}
        for index in range(last + 1):
            if index == self.model.cfg.n_layers:
                names["final_post"] = f"blocks.{index - 1}.hook_resid_post"
                continue
            names[f"{index}_pre"] = f"blocks.{index}.hook_resid_pre"
            if (incl_mid and index < last) or (self._mlp_reads_attention(mlp_input) and index == last):
                names[f"{index}_mid"] = f"blocks.{index}.hook_resid_mid"
        norm = self.norm_before(last, mlp_input, pos_slice) if apply_ln else FrozenNorm()
        parts = [self.part_at(label, name, pos_slice) for label, name in names.items()]
        stack, labels = self.stack_parts(parts, norm, pos_slice)
        return (stack, labels) if return_labels else stack

    def decompose_resid(
        self,
        layer: SupportsIndex | None = None,
        mlp_input: bool = False,
        mode: Literal["all", "mlp", "attn"] = "all",
        apply_ln: bool = False,
        pos_slice: Slice | SliceInput = None,
        incl_embeds: bool = True,
        return_labels: bool = False,
    ) -> Labelled:
        """Stacks what embeddings and layers wrote; with ``mode="all"`` its sum is the residual stream before `layer`.

        Args:
            layer: The layer that reads the stream; None, -1 and ``n_layers`` mean the unembedding.
            mlp_input: Its MLP reads, so that its attention's output counts too, except in parallel blocks.
            mode: Which layers' outputs: of "attn", of "mlp", or of both.
            apply_ln: Apply the norm before `layer` to each component; see `apply_ln_to_stack`.
            pos_slice: The positions to take.
            incl_embeds: Also the embeddings of tokens and, where they are added to the stream, of positions.
            return_labels: Return labels too: ``"embed"``, ``"pos_embed"``, ``"0_attn_out"``, ``"0_mlp_out"``.

        Returns:
            The components, or a pair of them and their labels.
        """
        last = self.layer_of(layer, mlp_input)
        parts = self.embedding_parts(pos_slice) if incl_embeds else []
        for index in range(last):
            for branch in anatomy.layer_of(self.model.cfg, index).branches:
                if mode in ("all", branch.name):
                    parts.append(self._written_by(index, branch.name, pos_slice))
        if mode != "mlp" and self._mlp_reads_attention(mlp_input):
            parts.append(self._written_by(last, "attn", pos_slice))
        parts = self.carried(parts, last, mlp_input, pos_slice)
        if mode == "all" and incl_embeds:
            parts += self.closing_biases(last, mlp_input, pos_slice)
        norm = self.norm_before(last, mlp_input, pos_slice) if apply_ln else FrozenNorm()
        stack, labels = self.stack_parts(parts, norm, pos_slice)
        return (stack, labels) if return_labels else stack

    def embedding_parts(self, pos_slice: Slice | SliceInput) -> list[Part]:
        """Returns the embeddings that the residual stream begins with, as far as they were kept."""
        adds_positions = self.has_pos_embed and anatomy.embedding_of(self.model.cfg).adds_positions
        present = {"embed": self.has_embed, "pos_embed": adds_positions}
        return [self.part_at(label, f"hook_{label}", pos_slice) for label, is_there in present.items() if is_there]

    def part_at(self, label: str, name: str, pos_slice: Slice | SliceInput) -> Part:
        """Returns the activation of a hook point as one component."""
        return Part([label], partial(self._one_component, name, pos_slice))

    def _written_by(self, layer: int, branch: str, pos_slice: Slice | SliceInput) -> Part:
        part = self.part_at(f"{layer}_{branch}_out", f"blocks.{layer}.hook_{branch}_out", pos_slice)
        return replace(part, layer=layer, branch=branch)

    def carried(self, parts: Sequence[Part], last: int, mlp_input: bool, pos_slice: Slice | SliceInput) -> list[Part]:
        """Returns parts as the reader of the stream finds them: behind every norm that a sum went through since.

        Args:
            parts: What was added to the stream.
            last: The layer that reads.
            mlp_input: Its MLP reads.
            pos_slice: The positions to take.
        """
        if all(record.adds_up for record in anatomy.layers(self.model.cfg)):
            return list(parts)
        norms = [self.closings(part.layer, part.branch, last, mlp_input, pos_slice) for part in parts]
        return [
            Part(part.labels, partial(_through, passed, part.make), None, part.layer, part.branch)
            for part, passed in zip(parts, norms)
        ]

    def closing_biases(self, last: int, mlp_input: bool, pos_slice: Slice | SliceInput) -> list[Part]:
        """Returns what the norms of the stream themselves have added to it, as one part; mostly there is none."""
        norms = self.closings(0, None, last, mlp_input, pos_slice)
        return [Part(["norm_bias"], partial(self._closing_bias, norms, pos_slice))] if norms else []

    def _closing_bias(self, norms: Sequence[FrozenNorm], pos_slice: Slice | SliceInput) -> Tensor:
        total = torch.zeros_like(self._any_residual(pos_slice)).unsqueeze(0)
        for norm in norms:
            total = norm(total)
            total = total if norm.bias is None else total + norm.bias.to(total.device)
        return total

    def _one_component(self, name: str, pos_slice: Slice | SliceInput) -> Tensor:
        return as_slice(pos_slice).apply(self[name], dim=-2).unsqueeze(0)

    def _mlp_reads_attention(self, mlp_input: bool) -> bool:
        return mlp_input and anatomy.layer_of(self.model.cfg, 0).has_middle


def _through(norms: Sequence[FrozenNorm], make: Callable[[], Tensor]) -> Tensor:
    components = make()
    for norm in norms:
        components = norm(components)
    return components
