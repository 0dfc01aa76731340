"""What transformers is given of a checkpoint: a folder that holds nothing but the files it needs.

Whatever lies beside a file may name code, or another model to load. What is not handed over cannot.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def handed_over(files: Iterable[Path]) -> Iterator[Path]:
    """Makes a folder with links to files under their own names; it is gone at the end of the ``with`` block.

    Where links are not allowed (Windows), the same file gets a second name, or is copied.
    """
    with tempfile.TemporaryDirectory(prefix="transformer_lens_", ignore_cleanup_errors=True) as folder:
        for path in files:
            _link(path.resolve(), Path(folder) / path.name)
        yield Path(folder)


def _link(path: Path, name: Path) -> None:
    for link in (os.symlink, os.link):
        try:
            return link(path, name)
        except OSError:
            # Not allowed, not on this file system, or across two of them.
            continue
    shutil.copyfile(path, name)


def is_failure(error: BaseException) -> bool:
    """Whether an exception is the failure of what was called: a panic of its Rust code is no ``Exception``."""
    return isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime"
