"""``transformer-lens verify``: our numbers against transformers'."""

from __future__ import annotations

from typing import Any

import typer

from transformer_lens.cli.options import JSON, NAME, in_flags, require_device, takes_load_options


@takes_load_options
def verify(name: NAME, *, json: JSON = False, arguments: dict[str, Any]) -> None:
    """Compare our model with transformers on the same weights, block by block; exit code 1 if they disagree.

    Without options the weights are compared as the file has them; with options the model is loaded with them first, as
    `load` does.
    """
    from transformer_lens import HookedTransformer, loading

    require_device(arguments.get("device"))
    given = HookedTransformer.from_pretrained(name, **arguments) if arguments else name
    found = loading.verify(given, show=False)
    typer.echo(found.to_json(2) if json else in_flags(str(found)))
    if not found.holds:
        raise typer.Exit(1)
