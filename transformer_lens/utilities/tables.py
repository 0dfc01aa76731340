"""Tables for people: in a terminal, and in a notebook."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

_LAYER = re.compile(r"^blocks\.(\d+)\.")


def by_layer(rows: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Joins rows that are alike in several layers: "blocks.{0…11}.hook_mlp_out".

    Args:
        rows: Each begins with a name; what follows says whether two are alike.
    """
    layers: dict[tuple[str, ...], list[int]] = {}
    for name, *rest in rows:
        found = _LAYER.match(name)
        key = (_LAYER.sub("blocks.{}.", name), *rest)
        layers.setdefault(key, []).extend([int(found.group(1))] if found else [])
    return [
        (name.replace("{}", _numbers(found), 1) if found else name, *rest) for (name, *rest), found in layers.items()
    ]


def as_text(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in columns, two spaces between them."""
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in (headings, *rows)
    )


def as_html_table(summary: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a line that unfolds to a table; every cell is escaped."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in headings)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f"<details><summary><code>{escape(summary)}</code></summary>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></details>"
    )


def size_in_words(nbytes: int) -> str:
    """Returns bytes for people."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if nbytes >= size:
            return f"{nbytes / size:.1f} {unit}"
    return f"{nbytes} B"


def _numbers(found: Sequence[int]) -> str:
    """Returns layers in short: "3", "{0…11}", "{0,2,4}"."""
    if len(found) == 1:
        return str(found[0])
    if list(found) == list(range(found[0], found[-1] + 1)):
        return f"{{{found[0]}…{found[-1]}}}"
    return "{" + ",".join(map(str, found)) + "}"
