"""The hook points of a model, that print as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, ValuesView

from transformer_lens.anatomy import Hook
from transformer_lens.hook_points import HookPoint
from transformer_lens.utilities.tables import as_html_table, as_text, by_layer

_HEADINGS = ("hook point", "shape", "is")


class HookPointsView(ValuesView[HookPoint]):
    """The hook points in the order of ``hook_dict``; it prints as a table, with what is alike in all layers joined."""

    def __init__(
        self,
        hook_dict: Mapping[str, HookPoint],
        records: Callable[[], Mapping[str, Hook]] = dict,
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        """Takes the points.

        Args:
            hook_dict: By name.
            records: Returns what is known of points by name; asked when the table is printed.
            sizes: Of axes, to be shown.
        """
        super().__init__(hook_dict)
        self._hook_dict, self._records, self._sizes = hook_dict, records, sizes or {}

    def rows(self) -> list[tuple[str, ...]]:
        """Returns the rows of the table: name, shape, meaning."""
        records = self._records()
        return by_layer(self._row(name, point, records.get(name)) for name, point in self._hook_dict.items())

    def _row(self, name: str, point: HookPoint, record: Hook | None) -> tuple[str, ...]:
        axes = (point.axes or "") if record is None else record.axes
        shape = ", ".join(f"{axis}={self._sizes[axis]}" if axis in self._sizes else axis for axis in axes.split())
        if record is None:
            return name, f"[{shape}]" if shape else "", ""
        return name, f"[{shape}]", record.meaning + (f" (with cfg.{record.switch})" if record.switch else "")

    def __repr__(self) -> str:
        return as_text(_HEADINGS, self.rows())

    def _repr_html_(self) -> str:
        return as_html_table(f"{len(self)} hook points", _HEADINGS, self.rows())
