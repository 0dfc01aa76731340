"""``transformer-lens load``: loads, and says what was done."""

from __future__ import annotations

from typing import Any

import typer

from transformer_lens.cli.options import JSON, NAME, in_flags, require_device, takes_load_options


@takes_load_options
def load(name: NAME, *, json: JSON = False, arguments: dict[str, Any]) -> None:
    """Load a checkpoint and print the report of it."""
    from transformer_lens import HookedTransformer

    require_device(arguments.get("device"))
    report = HookedTransformer.from_pretrained(name, **arguments).load_report
    assert report is not None
    typer.echo(report.to_json(2) if json else in_flags(str(report)))
