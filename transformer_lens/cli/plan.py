"""``transformer-lens plan``: what a load would take."""

from __future__ import annotations

from typing import Any

import typer

from transformer_lens.cli.options import JSON, NAME, takes_load_options


@takes_load_options
def plan(name: NAME, *, json: JSON = False, arguments: dict[str, Any]) -> None:
    """Say what a load would take, for every load mode and device, and whether it fits; exit code 1 if it does not.

    Nothing is read but configs and headers.
    """
    from transformer_lens import HookedTransformer

    found = HookedTransformer.plan_load(name, **arguments)
    typer.echo(found.to_json(2) if json else str(found))
    if not found.fits:
        raise typer.Exit(1)
