"""``transformer-lens plan``: what a load would take."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from transformer_lens.cli.options import JSON, NAME, in_flags, takes_load_options
from transformer_lens.loading.memory.sizes import memory_of_words

MEMORY = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        help="What the machine has that is planned for: 16GiB of main memory, or cuda=24GiB of each GPU. May be given "
        "several times; without it this machine is asked.",
        metavar="[DEVICE=]SIZE",
    ),
]


@takes_load_options
def plan(name: NAME, *, memory: MEMORY = None, json: JSON = False, arguments: dict[str, Any]) -> None:
    """Say what a load would take, for every load mode and device, and whether it fits; exit code 1 if it does not.

    Nothing is read but configs and headers. The devices need not be here.
    """
    from transformer_lens import HookedTransformer

    found = HookedTransformer.plan_load(name, memory=memory_of_words(memory or ()) or None, **arguments)
    typer.echo(found.to_json(2) if json else in_flags(str(found)))
    if not found.fits:
        raise typer.Exit(1)
