"""``transformer-lens models``: what can be loaded."""

from __future__ import annotations

from json import dumps
from typing import Annotated

import typer

from transformer_lens.cli.options import JSON

MARKDOWN = Annotated[bool, typer.Option("--markdown", help="Print the page docs/models.md.")]


def models(*, markdown: MARKDOWN = False, json: JSON = False) -> None:
    """List the classes of models that load: their blocks, the processing that is not legal, their listed names."""
    from transformer_lens.loading import supported

    records = supported.supported_architectures()
    if json:
        typer.echo(dumps([record.as_dict() for record in records], indent=2))
    elif markdown:
        typer.echo(supported.markdown(records), nl=False)
    else:
        for record in records:
            typer.echo(f"{record.name} ({record.model_type}; {', '.join(record.files)})")
            typer.echo(f"  {record.block}")
            for step, reason in record.left_out:
                typer.echo(f"  without {step}: {reason}")
            if record.names:
                typer.echo(f"  {', '.join(record.names)}")
