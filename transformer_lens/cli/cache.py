"""``transformer-lens cache``: what the cache of processed weights holds, whether it is right, and emptying it.

Exit codes: 0 done, 1 an entry is broken (`verify`), 2 there is no entry of such a key.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from transformer_lens.loading.memory import processed
from transformer_lens.loading.report import gib

BROKEN, UNKNOWN = 1, 2

app = typer.Typer(name="cache", help="Processed weights that are kept as files.", no_args_is_help=True)

Keys = Annotated[list[str] | None, typer.Argument(help="Keys of entries, or how they start; all where none is given.")]
AsJson = Annotated[bool, typer.Option("--json", help="Writes JSON.")]


@app.command("list")
def list_entries(as_json: AsJson = False) -> None:
    """Lists the entries, the last used first."""
    found = processed.entries()
    if as_json:
        _print_json({"folder": str(processed.cache_folder()), "entries": [_plain(entry) for entry in found]})
        return
    total = sum(entry.nbytes for entry in found)
    table = Table(title=f"{processed.cache_folder()}: {gib(total)}", title_justify="left")
    table.add_column("key", no_wrap=True, min_width=12)
    for head in ("checkpoint", "size", "dtype", "processed by", "created", "last used"):
        table.add_column(head, justify="right" if head == "size" else "left", overflow="fold")
    for entry in found:
        label = f"[red]broken[/red]: {entry.problem}" if entry.problem else entry.label
        table.add_row(
            entry.key[:12],
            label,
            gib(entry.nbytes),
            entry.dtype,
            ", ".join(entry.flags),
            f"{entry.created:%Y-%m-%d %H:%M}",
            f"{entry.last_used:%Y-%m-%d %H:%M}",
        )
    Console().print(table)


@app.command()
def clear(keys: Keys = None, as_json: AsJson = False) -> None:
    """Removes entries; models that have mapped them are not disturbed."""
    chosen = None if not keys else [entry.key for entry in _chosen(keys)]
    count = len(processed.entries()) if chosen is None else len(chosen)
    freed = processed.clear(chosen)
    if as_json:
        _print_json({"removed": count, "bytes_freed": freed})
    else:
        Console().print(f"{count} removed, {gib(freed)} freed in {processed.cache_folder()}")


@app.command()
def verify(keys: Keys = None, as_json: AsJson = False) -> None:
    """Reads every byte of the entries and compares checksums; exit code 1 where one is broken."""
    found = {entry.key: processed.verify(entry) for entry in _chosen(keys)}
    if as_json:
        _print_json({"entries": found, "broken": [key for key, problems in found.items() if problems]})
    else:
        table = Table(title=str(processed.cache_folder()), title_justify="left")
        table.add_column("key")
        table.add_column("what was found", overflow="fold")
        for key, problems in found.items():
            table.add_row(key[:12], "[red]" + "\n".join(problems) + "[/red]" if problems else "whole and right")
        Console().print(table)
    if any(found.values()):
        raise typer.Exit(BROKEN)


def _chosen(keys: list[str] | None) -> list[processed.Entry]:
    """Returns the entries whose keys start as said; ends the command where one fits none, or more than one."""
    found = processed.entries()
    if not keys:
        return found
    out: dict[str, processed.Entry] = {}
    for key in keys:
        fitting = [entry for entry in found if entry.key.startswith(key)]
        if len(fitting) != 1:
            what = "no entry has" if not fitting else f"{len(fitting)} entries have"
            Console(stderr=True).print(f"{what} a key that starts with {key!r}; `transformer-lens cache list` has all.")
            raise typer.Exit(UNKNOWN)
        out[fitting[0].key] = fitting[0]
    return list(out.values())


def _plain(entry: processed.Entry) -> dict[str, Any]:
    return {
        "key": entry.key,
        "path": str(entry.path),
        "label": entry.label,
        "nbytes": entry.nbytes,
        "created": entry.created.isoformat(),
        "last_used": entry.last_used.isoformat(),
        "flags": list(entry.flags),
        "dtype": entry.dtype,
        "problem": entry.problem,
    }


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))
