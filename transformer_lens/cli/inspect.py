"""``transformer-lens inspect``: what a checkpoint holds."""

from __future__ import annotations

import sys
from json import dumps
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from transformer_lens.cli.options import JSON, NAME, in_flags, takes_load_options
from transformer_lens.loading.conversion.convert import collapse
from transformer_lens.loading.inspection import Inspection
from transformer_lens.loading.report import gib

# Columns below which a table would be folded more than it is read.
_WIDE = 120


@takes_load_options
def inspect(name: NAME, *, json: JSON = False, arguments: dict[str, Any]) -> None:
    """List every tensor of a checkpoint, which parameter of ours takes it, and what is dropped and why.

    What is alike in all layers is one row: h.{0…11}.ln_1.bias. A checkpoint that cannot be loaded is listed too.
    """
    from transformer_lens.hooked_transformer.pretrained import request_of
    from transformer_lens.loading import inspect_checkpoint

    found = inspect_checkpoint(request_of(name, **arguments))
    if json:
        typer.echo(dumps(found.as_dict(), indent=2))
    else:
        _show(found)


def _show(found: Inspection) -> None:
    # A terminal folds long cells; what is piped or kept in a file is not cut.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)
    console.print(Text(f"{found.label} ({found.kind}): {len(found.entries)} tensors, {gib(found.nbytes)}"))
    if found.files:
        console.print(Text(f"  files: {found.files}"))
    if found.architecture:
        console.print(Text(f"  {found.architecture}, by the table {found.table}"))
    else:
        console.print(Text("  no table of ours takes it:"))
        console.print(Text("    " + in_flags(found.problem).replace("\n", "\n    ")))
    if console.width < _WIDE:
        for name, dtype, shape, nbytes, what in found.rows():
            console.print(Text(name))
            console.print(Text(f"    {dtype} {shape} {nbytes}  {what}"))
    else:
        console.print(_table(found))
    if found.zero_filled:
        console.print(Text(f"  zero-filled, the file has nothing for: {', '.join(collapse(found.zero_filled))}"))


def _table(found: Inspection) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in ("tensor", "dtype", "shape"):
        table.add_column(head, overflow="fold")
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for row in found.rows():
        table.add_row(*(Text(cell) for cell in row))
    return table
