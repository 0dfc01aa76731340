"""Upstream's functions of positions: ALiBi's biases, and rotary tables of cosines and sines."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from transformer_lens.components.attention import masks
from transformer_lens.utilities.rotary_frequencies import rotary_frequencies


class PositionTables:
    """Tables that attention itself does not keep: it computes them for the positions at hand."""

    anatomy: Any

    ROTARY_INITIAL_CACHE_SIZE = 2048

    @staticmethod
    def create_alibi_slope(n_ctx: int, device: torch.device | str | None = None) -> Float[Tensor, "query key"]:
        """Returns ``key - query`` for keys before their query, else 0."""
        positions = torch.arange(n_ctx, device=device)
        return (positions[None, :] - positions[:, None]).clamp(max=0).float()

    @staticmethod
    def create_alibi_multipliers(n_heads: int, device: torch.device | str | None = None) -> Float[Tensor, "n_heads"]:
        """Returns each head's slope (Press et al., 2021; BLOOM's for numbers that are no power of two)."""
        return masks.alibi_slopes(n_heads, torch.device("cpu")).to(device)

    @staticmethod
    def create_alibi_bias(
        n_heads: int, n_ctx: int, device: torch.device | str | None = None
    ) -> Float[Tensor, "head_idx query key"]:
        """Returns what ALiBi adds to the scores of `n_ctx` tokens: slope times minus the distance."""
        slopes = PositionTables.create_alibi_multipliers(n_heads, device)
        return slopes[:, None, None] * PositionTables.create_alibi_slope(n_ctx, device)

    def calculate_sin_cos_rotary(
        self, rotary_dim: int, n_ctx: int, base: float | int = 10000, dtype: torch.dtype = torch.float32
    ) -> tuple[Float[Tensor, "n_ctx rotary_dim"], Float[Tensor, "n_ctx rotary_dim"]]:
        """Returns sines and cosines of every position, each angle at both dimensions that turn by it.

        Args:
            rotary_dim: Dimensions that turn.
            n_ctx: Number of positions.
            base: The wavelengths are ``2 pi base^(2 i / rotary_dim)``, stretched as the layer's are.
            dtype: Of the result.
        """
        rotary = self.anatomy.rotary
        scaling = None if rotary is None or rotary.scaling is None else dict(rotary.scaling)
        frequencies, factor = rotary_frequencies(rotary_dim, float(base), scaling, n_ctx)
        angles = torch.arange(n_ctx, dtype=torch.float32)[:, None] * frequencies
        angles = angles.repeat_interleave(2, -1) if self._turns_adjacent_pairs() else torch.cat([angles, angles], -1)
        return (angles.sin() * factor).to(dtype), (angles.cos() * factor).to(dtype)

    def rotate_every_two(self, x: Float[Tensor, "... rotary_dim"]) -> Float[Tensor, "... rotary_dim"]:
        """Turns each pair of dimensions by a right angle: ``(a, b)`` becomes ``(-b, a)``."""
        if self._turns_adjacent_pairs():
            return torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)
        first, second = x.chunk(2, dim=-1)
        return torch.cat([-second, first], dim=-1)

    def _turns_adjacent_pairs(self) -> bool:
        return self.anatomy.rotary is not None and self.anatomy.rotary.adjacent_pairs
