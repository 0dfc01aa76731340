"""A cache as a table: names, shapes, dtypes and bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from transformer_lens.utilities.tables import as_html_table, as_text, by_layer, size_in_words

_HEADINGS = ("activation", "shape", "dtype", "bytes of each")


@dataclass(frozen=True, repr=False)
class CacheSummary:
    """What a cache holds; it prints as a table, with what is alike in all layers joined.

    Attributes:
        rows: Name, shape, dtype and bytes.
        count: Activations.
        nbytes: Of all of them.
    """

    rows: tuple[tuple[str, ...], ...]
    count: int
    nbytes: int

    @classmethod
    def of(cls, activations: Mapping[str, Tensor]) -> CacheSummary:
        """Describes activations by name."""
        sizes = {name: value.numel() * value.element_size() for name, value in activations.items()}
        rows = by_layer(
            (name, str(list(value.shape)), str(value.dtype).removeprefix("torch."), size_in_words(sizes[name]))
            for name, value in activations.items()
        )
        return cls(tuple(rows), len(activations), sum(sizes.values()))

    @property
    def _line(self) -> str:
        return f"{self.count} activations, {size_in_words(self.nbytes)}"

    def __repr__(self) -> str:
        return f"{as_text(_HEADINGS, self.rows)}\n{self._line}"

    def _repr_html_(self) -> str:
        return as_html_table(f"ActivationCache: {self._line}", _HEADINGS, self.rows)
