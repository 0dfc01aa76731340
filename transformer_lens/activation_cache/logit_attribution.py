"""What components of the residual stream say for one token against another."""

from __future__ import annotations

from typing import Union

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens.activation_cache.mapping import as_slice
from transformer_lens.activation_cache.residual import ResidualMixin
from transformer_lens.utilities.slice import Slice, SliceInput

Tokens = Union[str, int, Int[Tensor, ""], Int[Tensor, "batch"], Int[Tensor, "batch position"]]


class LogitAttributionMixin(ResidualMixin):
    """Direct logit attribution."""

    def logit_attrs(
        self,
        residual_stack: Float[Tensor, "num_components *batch_and_pos_dims d_model"],
        tokens: Tokens,
        incorrect_tokens: Tokens | None = None,
        pos_slice: Slice | SliceInput = None,
        batch_slice: Slice | SliceInput = None,
        has_batch_dim: bool = True,
    ) -> Float[Tensor, num_components * batch_and_pos_dims_out]:
        """Returns each component's part in the logits of tokens, or in the difference to other tokens.

        ``norm(component) . W_U[:, token]``, with the scale that the final norm used.

        Args:
            residual_stack: Components, sliced already by `pos_slice`.
            tokens: The tokens whose logits are explained.
            incorrect_tokens: Tokens whose logits are taken away.
            pos_slice: Positions that the stack holds.
            batch_slice: Part of the batch to take.
            has_batch_dim: Whether the stack has a batch axis.

        Raises:
            ValueError: The two sets of tokens have different shapes.
        """
        directions = self._directions(tokens, batch_slice)
        if incorrect_tokens is not None:
            others = self._directions(incorrect_tokens, batch_slice)
            if others.shape != directions.shape:
                raise ValueError(
                    f"tokens give directions of shape {tuple(directions.shape)}, incorrect_tokens "
                    f"{tuple(others.shape)}: one of each for every example."
                )
            directions = directions - others
        scaled = self.apply_ln_to_stack(
            residual_stack, layer=-1, pos_slice=pos_slice, batch_slice=batch_slice, has_batch_dim=has_batch_dim
        )
        return (scaled * directions).sum(dim=-1)

    def _directions(self, tokens: Tokens, batch_slice: Slice | SliceInput) -> Tensor:
        """Returns the unembedding directions of tokens, one for each example of the slice."""
        if isinstance(tokens, int):
            tokens = torch.as_tensor(tokens)
        directions: Tensor = self.model.tokens_to_residual_directions(tokens)
        if self.has_batch_dim and batch_slice is not None and directions.ndim > 1:
            directions = as_slice(batch_slice).apply(directions, dim=0)
        return directions
