"""The residual stream, by layers and by what writes to it."""

from functools import partial
from typing import Literal, SupportsIndex

from torch import Tensor

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
            mlp_input: End with what the MLP of `layer` reads. In parallel blocks that is what the attention reads.
            return_labels: Return labels too: ``"2_pre"``, ``"2_mid"``, ``"final_post"``.

        Returns:
            The streams, or a pair of them and their labels.
        """
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
            if mode != "mlp":
                parts.append(self.part_at(f"{index}_attn_out", f"blocks.{index}.hook_attn_out", pos_slice))
            if mode != "attn" and not self.model.cfg.attn_only:
                parts.append(self.part_at(f"{index}_mlp_out", f"blocks.{index}.hook_mlp_out", pos_slice))
        if mode != "mlp" and self._mlp_reads_attention(mlp_input):
            parts.append(self.part_at(f"{last}_attn_out", f"blocks.{last}.hook_attn_out", pos_slice))
        norm = self.norm_before(last, mlp_input, pos_slice) if apply_ln else FrozenNorm()
        stack, labels = self.stack_parts(parts, norm, pos_slice)
        return (stack, labels) if return_labels else stack

    def embedding_parts(self, pos_slice: Slice | SliceInput) -> list[Part]:
        """Returns the embeddings that the residual stream begins with, as far as they were kept."""
        # "shortformer" models add positions to queries and keys, not to the stream.
        adds_positions = self.has_pos_embed and self.model.cfg.positional_embedding_type != "shortformer"
        present = {"embed": self.has_embed, "pos_embed": adds_positions}
        return [self.part_at(label, f"hook_{label}", pos_slice) for label, is_there in present.items() if is_there]

    def part_at(self, label: str, name: str, pos_slice: Slice | SliceInput) -> Part:
        """Returns the activation of a hook point as one component."""
        return Part([label], partial(self._one_component, name, pos_slice))

    def _one_component(self, name: str, pos_slice: Slice | SliceInput) -> Tensor:
        return as_slice(pos_slice).apply(self[name], dim=-2).unsqueeze(0)

    def _mlp_reads_attention(self, mlp_input: bool) -> bool:
        return mlp_input and not self.model.cfg.parallel_attn_mlp
