"""What a comparison found, as rows of a table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        name: "embed", "blocks.3", "logits" or an invariant of a block.
        error: The largest difference, relative to the spread of what is compared.
        holds: Whether it is within tolerance.
    """

    name: str
    error: float
    holds: bool


@dataclass(frozen=True)
class Verification:
    """What a comparison with transformers found.

    Attributes:
        label: The checkpoint.
        rows: Comparisons in the order of the forward pass.
        notes: What was not done as usual, a sentence each.
    """

    label: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether every comparison is within tolerance."""
        return all(row.holds for row in self.rows)

    @property
    def first_disagreement(self) -> str | None:
        """Name of the first comparison that is not."""
        return next((row.name for row in self.rows if not row.holds), None)

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        lines = [f"{self.label}: our numbers against transformers'"]
        lines += [f"  {row.name:{width}}  {row.error:.1e}  {'ok' if row.holds else 'DIFFERS'}" for row in self.rows]
        first = self.first_disagreement
        lines.append("  all agree" if first is None else f"  the first that disagrees is {first}")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)
