"""A progress bar over bytes, for loads that take longer than a second."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def byte_progress(total: int, label: str, shown: bool | None) -> Iterator[Callable[[int], None]]:
    """Yields a function that is told bytes as they are done.

    Args:
        total: Bytes in all.
        label: What is loaded.
        shown: Whether there is a bar; None: where stderr is a terminal and TRANSFORMERLENS_PROGRESS is not 0.
    """
    if shown is None:
        shown = sys.stderr.isatty() and os.environ.get("TRANSFORMERLENS_PROGRESS", "1") != "0"
    if not shown:
        yield lambda nbytes: None
        return
    with tqdm(total=total, desc=label, unit="B", unit_scale=True, unit_divisor=1024, delay=1.0, leave=False) as bar:

        def advance(nbytes: int) -> None:
            bar.update(nbytes)

        yield advance
