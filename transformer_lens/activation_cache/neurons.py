"""What each neuron wrote, and the finest decomposition of the residual stream."""

from __future__ import annotations

from typing import Any, Union

import torch
from torch import Tensor

from transformer_lens.activation_cache.heads import HeadsMixin
from transformer_lens.activation_cache.mapping import as_slice
from transformer_lens.utilities.slice import Slice, SliceInput

# One projection makes the last axis go, several make it the axis of projections.
Result = Union[Tensor, tuple[Tensor, list[str]]]


class NeuronsMixin(HeadsMixin):
    """Results of neurons."""

    def get_neuron_results(
        self,
        layer: int,
        neuron_slice: Slice | SliceInput = None,
        pos_slice: Slice | SliceInput = None,
        project_output_onto: Tensor | None = None,
    ) -> Tensor:
        """Returns ``post[neuron] * W_out[neuron]`` of one layer: [..., neuron, d_model].

        Args:
            layer: Which.
            neuron_slice: Neurons to take.
            pos_slice: Positions to take.
            project_output_onto: A direction [d_model], or several [d_model, num_outputs], onto which results are
                projected; the whole results are then never made.
        """
        acts = as_slice(pos_slice).apply(self["post", layer], dim=-2)
        neuron_slice = as_slice(neuron_slice)
        acts = neuron_slice.apply(acts, dim=-1)
        out = neuron_slice.apply(self.model.blocks[layer].mlp.W_out, dim=0)
        if project_output_onto is not None:
            out = out @ project_output_onto
            if project_output_onto.ndim == 1:
                return acts * out
        return acts[..., None] * out

    def stack_neuron_results(
        self,
        layer: int,
        pos_slice: Slice | SliceInput = None,
        neuron_slice: Slice | SliceInput = None,
        return_labels: bool = False,
        incl_remainder: bool = False,
        apply_ln: bool = False,
        project_output_onto: Tensor | None = None,
    ) -> Result:
        """Returns what every neuron of the layers before `layer` wrote, stacked. It is large: slice.

        Args:
            layer: None and -1 mean the end.
            pos_slice: Positions to take.
            neuron_slice: Neurons to take in every layer.
            return_labels: Whether labels ("L0N0", …) are returned too.
            incl_remainder: Whether the rest of the stream is the last entry.
            apply_ln: Whether the norm at `layer` is applied to each; not with a projection.
            project_output_onto: As in `get_neuron_results`.

        Raises:
            ValueError: A norm is asked for of what has been projected.
        """
        layers = self._layers(layer)
        pos_slice, neuron_slice = as_slice(pos_slice), as_slice(neuron_slice)
        if neuron_slice.mode == "int":
            assert isinstance(neuron_slice.slice, int)
            neuron_slice = Slice([neuron_slice.slice])
        if apply_ln and project_output_onto is not None:
            raise ValueError("apply_ln goes before a projection: it cannot be applied to what has been projected.")
        axis = -1 if project_output_onto is not None and project_output_onto.ndim == 1 else -2
        each = [
            self.get_neuron_results(index, neuron_slice, pos_slice, project_output_onto).movedim(axis, 0)
            for index in range(layers)
        ]
        neurons = neuron_slice.indices(self.model.cfg.d_mlp)
        labels = [f"L{index}N{neuron}" for index in range(layers) for neuron in neurons]
        if each:
            stack = torch.cat(each)
        else:
            empty = self._empty_stack(pos_slice)
            stack = empty if project_output_onto is None else empty @ project_output_onto
        if incl_remainder:
            stream = self._stream_before(layers, pos_slice)
            stream = stream if project_output_onto is None else stream @ project_output_onto
            stack = torch.cat([stack, (stream - stack.sum(dim=0))[None]])
            labels.append("remainder")
        if apply_ln:
            stack = self.apply_ln_to_stack(stack, layers, pos_slice=pos_slice)
        return (stack, labels) if return_labels else stack

    def get_full_resid_decomposition(
        self,
        layer: int | None = None,
        mlp_input: bool = False,
        expand_neurons: bool = True,
        apply_ln: bool = False,
        pos_slice: Slice | SliceInput = None,
        return_labels: bool = False,
        project_output_onto: Tensor | None = None,
    ) -> Result:
        """Returns heads, neurons (or MLPs), embeddings and biases: the sum over the stack is the stream before `layer`.

        Args:
            layer: None and -1 mean the end.
            mlp_input: Whether the attention of `layer` itself is among them.
            expand_neurons: Whether MLPs are split into neurons.
            apply_ln: Whether the norm at `layer` is applied to each.
            pos_slice: Positions to take.
            return_labels: Whether labels are returned too.
            project_output_onto: As in `get_neuron_results`; with `apply_ln` the norm goes first.
        """
        layers = self._layers(layer)
        pos_slice = as_slice(pos_slice)
        late = project_output_onto if apply_ln else None
        early = None if apply_ln else project_output_onto
        parts: list[Tensor] = []
        labels: list[str] = []

        def add(stack: Tensor, names: list[str], projected: bool = False) -> None:
            parts.append(stack if early is None or projected else stack @ early)
            labels.extend(names)

        heads, head_labels = self._labelled(
            self.stack_head_results(layers + (1 if mlp_input else 0), return_labels=True, pos_slice=pos_slice)
        )
        add(heads, head_labels)
        if not self.model.cfg.attn_only and layers > 0:
            if expand_neurons:
                neurons, names = self._labelled(
                    self.stack_neuron_results(
                        layers, pos_slice=pos_slice, return_labels=True, project_output_onto=early
                    )
                )
                add(neurons, names, projected=True)
            else:
                mlps, names = self._labelled(
                    self.decompose_resid(layers, mode="mlp", pos_slice=pos_slice, incl_embeds=False, return_labels=True)
                )
                add(mlps, names)
        for name, there in (("embed", self.has_embed), ("pos_embed", self.has_pos_embed)):
            if there:
                add(pos_slice.apply(self[f"hook_{name}"], dim=-2)[None], [name])
        bias = self.model.accumulated_bias(layers, mlp_input, include_mlp_biases=expand_neurons)
        add(bias.expand((1, *heads.shape[1:])), ["bias"])
        stack = torch.cat(parts)
        if apply_ln:
            stack = self.apply_ln_to_stack(stack, layers, pos_slice=pos_slice, mlp_input=mlp_input)
        if late is not None:
            stack = stack @ late
        return (stack, labels) if return_labels else stack

    @staticmethod
    def _labelled(result: Any) -> tuple[Tensor, list[str]]:
        stack, labels = result
        return stack, labels
