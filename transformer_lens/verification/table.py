"""What a comparison found, as rows of a table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from transformer_lens.loading.report import as_html, shortened


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


@dataclass(frozen=True, repr=False)
class Verification:
    """What a comparison with transformers found. ``print(verification)`` is the table; its repr is a line.

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

    def as_dict(self) -> dict[str, Any]:
        """Returns everything as data that JSON can hold: an error that is no number is None."""
        rows = [asdict(row) | {"error": row.error if isfinite(row.error) else None} for row in self.rows]
        first = self.first_disagreement
        return {
            "label": self.label, "holds": self.holds, "first_disagreement": first, "rows": rows,
            "notes": list(self.notes),
        }  # fmt: skip

    def to_json(self, indent: int | None = None) -> str:
        """Returns everything as JSON."""
        return json.dumps(self.as_dict(), indent=indent)

    def __repr__(self) -> str:
        wrong = sum(not row.holds for row in self.rows)
        worst = max((row.error for row in self.rows), default=0.0)
        found = f"{len(self.rows)} comparisons agree, the largest error is {worst:.1e}"
        if wrong:
            found = f"{wrong} of {len(self.rows)} comparisons DIFFER, the first is {self.first_disagreement}"
        return f"<Verification of {shortened(self.label)}: {found}; print it for more>"

    def _repr_html_(self) -> str:
        return as_html(repr(self), str(self))

    def __str__(self) -> str:
        width = max((len(row.name) for row in self.rows), default=0)
        lines = [f"{self.label}: our numbers against transformers'"]
        lines += [f"  {row.name:{width}}  {row.error:.1e}  {'ok' if row.holds else 'DIFFERS'}" for row in self.rows]
        first = self.first_disagreement
        lines.append("  all agree" if first is None else f"  the first that disagrees is {first}")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)
