"""A rich table as markdown, so that the terminal and the page cannot tell different things."""

from __future__ import annotations

from rich.table import Table


def as_markdown(table: Table) -> str:
    """Returns title, table and caption. Cells are the table's own; the first column is the text, the rest figures."""
    heads = [str(column.header) for column in table.columns]
    columns = [[str(cell) for cell in column.cells] for column in table.columns]
    rules = ["--:" if column.justify == "right" else "---" for column in table.columns]
    lines = [f"{table.title}:", "", _row(heads), _row(rules)]
    lines += [_row(cells) for cells in zip(*columns)]
    if table.caption:
        lines += ["", f"*{table.caption}*"]
    return "\n".join(lines) + "\n"


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
