"""Which components raised the logit of a token."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens import anatomy
from transformer_lens.activation_cache.mapping import as_slice
from transformer_lens.activation_cache.norms import NormsMixin
from transformer_lens.utilities.slice import Slice, SliceInput

__all__ = ["LogitAttributionMixin"]


class LogitAttributionMixin(NormsMixin):
    """Reads components as the unembedding reads their sum."""

    def logit_attrs(
        self,
        residual_stack: Float[Tensor, "num_components *batch_and_pos_dims d_model"],
        tokens: str | int | Int[Tensor, "*token_dims"],
        incorrect_tokens: str | int | Int[Tensor, "*incorrect_token_dims"] | None = None,
        pos_slice: Slice | SliceInput = None,
        batch_slice: Slice | SliceInput = None,
        has_batch_dim: bool = True,
    ) -> Float[Tensor, "num_components *batch_and_pos_dims_out"]:
        """Computes what each component adds to the logit of a token (direct logit attribution).

        ``attr[c] = norm(stack[c]) @ W_U[:, token]``, where the norm is the final one with the scale of the whole
        stream, times ``cfg.logit_multiplier``. For a stack that sums to the final residual stream, of a model with
        folded norms (or without), the sum of the attributions is the token's logit, before the cap of logits if there
        is one, less what ``b_U[token]`` adds.

        Args:
            residual_stack: The components, at the positions of `pos_slice` only.
            tokens: The token, or one for each row, ``[batch]``, or for each position, ``[batch pos]``, of what the
                slices leave.
            incorrect_tokens: Tokens whose logits are subtracted, of the shape of `tokens`.
            pos_slice: The positions that the components are of.
            batch_slice: The rows of the batch to take, of scale and components.
            has_batch_dim: The components have all rows, so that rows have to be taken; otherwise they have been.

        Raises:
            ValueError: The tokens are not of one shape.
        """
        directions = self._directions(tokens)
        if incorrect_tokens is not None:
            incorrect = self._directions(incorrect_tokens)
            if _shape(tokens) != _shape(incorrect_tokens):
                raise ValueError(
                    f"tokens are of shape {_shape(tokens)}, incorrect_tokens of {_shape(incorrect_tokens)}: "
                    "they must be the same"
                )
            directions = directions - incorrect
        if has_batch_dim:
            residual_stack = as_slice(batch_slice).apply(residual_stack, dim=1)
        norm = self.norm_before(None, False, pos_slice, batch_slice)
        multiplier = anatomy.unembedding_of(self.model.cfg).multiplier
        directions = directions if multiplier == 1.0 else directions * multiplier
        directions = norm.pull_back(directions.to(residual_stack.device))
        dtype = torch.promote_types(residual_stack.dtype, directions.dtype)
        if norm.scale is not None:
            dtype = torch.promote_types(dtype, norm.scale.dtype)
        # A product for each component and position, without a copy of the stack.
        attributions = torch.einsum("c...d,...d->c...", residual_stack.to(dtype), directions.to(dtype))
        return norm.divide(attributions, squeezed=True)

    def _directions(self, tokens: str | int | Tensor) -> Tensor:
        directions: Tensor = self.model.tokens_to_residual_directions(tokens)
        return directions


def _shape(tokens: str | int | Tensor) -> tuple[int, ...]:
    return tuple(tokens.shape) if isinstance(tokens, Tensor) else ()
