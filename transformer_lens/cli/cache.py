"""``transformer-lens cache``: what the cache of processed weights holds, whether it is right, and emptying it.

Exit codes: 0 done, 1 an entry is broken (`verify`), 2 there is no entry of such a key.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

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
    typer.echo(f"{processed.cache_folder()}: {gib(total)}" + ("" if found else ", no entries"))
    for entry in found:
        typer.echo(
            f"{entry.key[:12]}  {gib(entry.nbytes):>10}  {entry.dtype:<8}  "
            f"used {entry.last_used:%Y-%m-%d %H:%M}, made {entry.created:%Y-%m-%d %H:%M}"
        )
        typer.echo(f"  broken: {entry.problem}" if entry.problem else f"  {entry.label}: {', '.join(entry.flags)}")


@app.command()
def clear(keys: Keys = None, as_json: AsJson = False) -> None:
    """Removes entries; models that have mapped them are not disturbed."""
    chosen = None if not keys else [entry.key for entry in _chosen(keys)]
    count = len(processed.entries()) if chosen is None else len(chosen)
    freed = processed.clear(chosen)
    if as_json:
        _print_json({"removed": count, "bytes_freed": freed})
    else:
        typer.echo(f"{count} removed, {gib(freed)} freed in {processed.cache_folder()}")


@app.command()
def verify(keys: Keys = None, as_json: AsJson = False) -> None:
    """Reads every byte of the entries and compares checksums; exit code 1 where one is broken."""
    found = {entry.key: processed.verify(entry) for entry in _chosen(keys)}
    if as_json:
        _print_json({"entries": found, "broken": [key for key, problems in found.items() if problems]})
    else:
        typer.echo(f"{processed.cache_folder()}: {len(found)} read")
        for key, problems in found.items():
            typer.echo(f"{key[:12]}  {'broken' if problems else 'whole and right'}")
            for problem in problems:
                typer.echo(f"  {problem}")
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
            typer.echo(f"{what} a key that starts with {key!r}; `transformer-lens cache list` has all.", err=True)
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
