"""The options that every benchmark understands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.checkpoint import CACHE
from benchmarks.environments import default_folder
from benchmarks.memory import can_measure
from benchmarks.results import OUT
from benchmarks.shapes import SHAPES, Shape


def parser(
    purpose: str, short: Sequence[str] = (), full: Sequence[str] = (), rounds: tuple[int, int] = (3, 5)
) -> argparse.ArgumentParser:
    """Returns a parser of the common options.

    Args:
        purpose: What the command does.
        short: Shapes measured by default; none takes the option away.
        full: Shapes measured with ``--full``.
        rounds: How often each case is measured, by default and with ``--full``.
    """
    made = argparse.ArgumentParser(description=purpose, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--full", action="store_true", help="every size and more rounds: hours instead of minutes")
    made.add_argument("--rounds", type=int, help=f"default {rounds[0]}, with --full {rounds[1]}")
    made.add_argument("--data", type=Path, default=CACHE, help="where checkpoints are made")
    made.add_argument("--keep", action="store_true", help="leave the checkpoints there for the next run")
    made.add_argument("--out", type=Path, default=OUT, help="where the results are written")
    made.set_defaults(both_rounds=rounds, short_shapes=tuple(short), full_shapes=tuple(full), shapes=None)
    if short:
        made.add_argument(
            "--shapes",
            nargs="+",
            choices=sorted(SHAPES),
            help=f"default {', '.join(short)}; with --full {', '.join(full)}",
        )
    return made


def add_environments(made: argparse.ArgumentParser) -> None:
    """Adds where the environments of other libraries are."""
    made.add_argument(
        "--envs", type=Path, default=default_folder(), help="where environments are made, default %(default)s"
    )


def parse(made: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parses, and fills in what depends on ``--full``."""
    options = made.parse_args(arguments)
    if not can_measure():
        sys.exit("Private memory is read from /proc/<pid>/status, which this system does not have.")
    options.rounds = options.rounds or options.both_rounds[options.full]
    options.shapes = options.shapes or (options.full_shapes if options.full else options.short_shapes)
    return options


def shapes_of(options: argparse.Namespace) -> list[Shape]:
    """Returns the shapes that were asked for."""
    return [SHAPES[name] for name in options.shapes]


def console() -> Console:
    """Returns where tables go: as wide as the terminal, or wide enough where there is none."""
    return Console(width=None if sys.stdout.isatty() else 140)
