"""Rotary positions of one layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Scaling = tuple[tuple[str, Any], ...]


def frozen_scaling(numbers: Mapping[str, Any] | None) -> Scaling | None:
    """Returns the numbers of a rotary scaling as a hashable value, sorted by name; lists become tuples."""
    if numbers is None:
        return None
    return tuple(sorted((name, tuple(value) if isinstance(value, list) else value) for name, value in numbers.items()))


@dataclass(frozen=True)
class Rotary:
    """Queries and keys turn by ``position * theta^(-2 j / dimensions)`` in their j-th pair of dimensions.

    Attributes:
        dimensions: Rotated dimensions of each head; the rest pass unchanged.
        theta: The base.
        scaling: ``rope_type`` and its numbers, or None.
        adjacent_pairs: Dimensions ``(2j, 2j + 1)`` turn together, rather than ``(j, j + dimensions / 2)``.
    """

    dimensions: int
    theta: float
    scaling: Scaling | None = None
    adjacent_pairs: bool = False

    @property
    def depends_on_length(self) -> bool:
        """Whether the angle of a position depends on how long the sequence is."""
        return self.scaling is not None and dict(self.scaling)["rope_type"] in ("dynamic", "longrope")
