"""Runs every benchmark and keeps the results; ``python -m benchmarks.page --gather`` makes the page.

python -m benchmarks [--full] [--envs FOLDER] [--data FOLDER]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks import first_logits, growth, larger_than_memory, load, plan, processes, quantized, sweep
from benchmarks.checkpoint import CACHE
from benchmarks.environments import default_folder
from benchmarks.results import OUT


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs every command with the options that all of them share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="every size and more rounds: hours instead of minutes")
    parser.add_argument("--envs", type=Path, default=default_folder(), help="where environments are made")
    parser.add_argument("--data", type=Path, default=CACHE, help="where checkpoints are made")
    parser.add_argument("--out", type=Path, default=OUT, help="where the results are written")
    options = parser.parse_args(arguments)
    shared = ["--data", str(options.data), "--out", str(options.out), *(["--full"] if options.full else [])]
    load.main([*shared, "--envs", str(options.envs)])
    quantized.main([*shared, "--envs", str(options.envs)])
    for command in (first_logits, processes, sweep, growth):
        command.main(shared)
    larger_than_memory.main(["--out", str(options.out), "--envs", str(options.envs)])
    plan.main(["--out", str(options.out)])


if __name__ == "__main__":
    main()
