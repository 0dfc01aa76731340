"""The commands, together."""

from __future__ import annotations

from typing import Annotated

import typer

from transformer_lens import __version__
from transformer_lens.cli import cache
from transformer_lens.cli.doctor import doctor
from transformer_lens.cli.inspect import inspect
from transformer_lens.cli.load import load
from transformer_lens.cli.models import models
from transformer_lens.cli.plan import plan
from transformer_lens.cli.verify import verify

app = typer.Typer(
    name="transformer-lens",
    help="Loads checkpoints: what that takes, what is in a file, whether the numbers are right.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _say_version(asked: bool) -> bool:
    if asked:
        typer.echo(f"transformer-lens {__version__}")
        raise typer.Exit()
    return asked


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_say_version, is_eager=True)
    ] = False,
) -> None: ...


for command in (plan, load, inspect, verify, models, doctor):
    app.command()(command)
app.add_typer(cache.app, name="cache")


def main() -> None:
    """Runs the command."""
    app(prog_name="transformer-lens")
