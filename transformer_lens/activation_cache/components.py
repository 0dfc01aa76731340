"""Components of the residual stream, made one part at a time into one stack."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from transformer_lens.activation_cache.mapping import as_slice
from transformer_lens.activation_cache.norms import FrozenNorm, NormsMixin
from transformer_lens.utilities.slice import Slice, SliceInput

__all__ = ["ComponentsMixin", "Labelled", "Part", "Stack"]

Stack = Float[Tensor, "num_components *batch_and_pos_dims d_model"]
Labelled = Stack | tuple[Stack, list[str]]


@dataclass(frozen=True)
class Part:
    """Some components that come together, such as a layer's heads.

    Attributes:
        labels: Their names.
        make: Returns them, ``[component *batch_and_pos_dims d_model]``.
        project: Returns ``make() @ onto.T`` for directions ``[output d_model]`` or ``[d_model]``, where that is
            cheaper than making them.
        layer: The layer that added them to the stream.
        branch: Its branch, "attn" or "mlp"; None for what the stream begins with.
    """

    labels: Sequence[str]
    make: Callable[[], Tensor]
    project: Callable[[Tensor], Tensor] | None = None
    layer: int = 0
    branch: str | None = None


class ComponentsMixin(NormsMixin):
    """Stacks parts, normalised or projected on their way; at no time is more than one part held beside the stack."""

    def stack_parts(
        self,
        parts: Sequence[Part],
        norm: FrozenNorm,
        pos_slice: Slice | SliceInput = None,
        total: Tensor | None = None,
        onto: Tensor | None = None,
    ) -> tuple[Tensor, list[str]]:
        """Stacks the components of all parts.

        Args:
            parts: The parts, in order.
            norm: Applied to each component.
            pos_slice: The positions that they are of.
            total: What the components should sum to; what is missing is added as a last one, "remainder".
            onto: Directions ``[d_model output]`` or ``[d_model]`` to project each component onto.

        Returns:
            The stack and its labels.
        """
        labels = [label for part in parts for label in part.labels]
        length = len(labels) + (total is not None)
        stack = self._filled(parts, norm, onto, length)
        if stack is None:
            like = self._any_residual(pos_slice) if total is None else total
            like = _value(Part([""], lambda: like.unsqueeze(0)), norm, onto)[0]
            stack = like.new_zeros((length, *like.shape))
        if total is not None:
            whole = _value(Part([""], lambda: total.unsqueeze(0)), norm, onto)[0]
            stack[-1] = whole.to(stack.device) - stack[:-1].sum(0)
            labels.append("remainder")
        return stack, labels

    @staticmethod
    def _filled(parts: Sequence[Part], norm: FrozenNorm, onto: Tensor | None, length: int) -> Tensor | None:
        stack: Tensor | None = None
        start = 0
        for value in _values(parts, norm, onto):
            if stack is None:
                if len(value) == length:
                    return value
                stack = value.new_empty((length, *value.shape[1:]))
            stack = stack.to(torch.promote_types(stack.dtype, value.dtype))
            stack[start : start + len(value)] = value.to(stack.device)
            start += len(value)
        return stack

    def residual_before(self, layer: int, pos_slice: Slice | SliceInput = None) -> Tensor:
        """Returns the residual stream before a layer, ``n_layers`` being the unembedding."""
        name = f"blocks.{layer}.hook_resid_pre"
        residual = self[name] if name in self or layer == 0 else self["resid_post", layer - 1]
        return as_slice(pos_slice).apply(residual, dim=-2)

    def _any_residual(self, pos_slice: Slice | SliceInput) -> Tensor:
        for name, value in self.cache_dict.items():
            if name.endswith(("hook_embed", "hook_resid_pre", "hook_resid_post")):
                return as_slice(pos_slice).apply(value, dim=-2)
        raise KeyError("an empty stack takes its shape from a residual stream, and none is in the cache")


def _values(parts: Sequence[Part], norm: FrozenNorm, onto: Tensor | None) -> Iterator[Tensor]:
    for part in parts:
        if len(part.labels) > 0:
            yield _value(part, norm, onto)


def _value(part: Part, norm: FrozenNorm, onto: Tensor | None) -> Tensor:
    if onto is None:
        return norm(part.make())
    directions = norm.pull_back(onto.transpose(0, -1))
    if part.project is not None:
        projected = part.project(directions)
    else:
        components = part.make()
        dtype = torch.promote_types(components.dtype, directions.dtype)
        projected = components.to(dtype) @ directions.to(components.device, dtype).transpose(0, -1)
    return norm.divide(projected, squeezed=onto.ndim == 1)
