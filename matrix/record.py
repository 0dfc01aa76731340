"""Runs pytest in the environment of a cell and writes down what came of it. Needs nothing but pytest."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

NAMED = (
    "torch", "transformers", "accelerate", "bitsandbytes", "numpy", "huggingface_hub", "tokenizers", "safetensors",
    "jaxtyping", "einops", "peft", "gguf", "transformer-lens",
)  # fmt: skip


class Recorder:
    """A pytest plugin that counts, and keeps the reasons of what was skipped and the names of what failed."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed: list[str] = []
        self.skipped: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes one stage of one test."""
        if report.failed:
            self.failed.append(report.nodeid)
        elif report.skipped:
            # A reason: (file, line, "Skipped: why"), or of an expected failure a text.
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else f"expected to fail: {report.wasxfail}"
            self.skipped[why.removeprefix("Skipped: ")] += 1
        elif report.when == "call":
            self.passed += 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Takes a file that could not be imported, or is skipped as a whole."""
        if report.failed:
            self.failed.append(report.nodeid)
        elif report.skipped and isinstance(report.longrepr, tuple):
            self.skipped[report.longrepr[2].removeprefix("Skipped: ")] += 1


def installed() -> dict[str, str]:
    """Returns the versions of Python and of the packages that a cell is about."""
    out = {"python": platform.python_version()}
    for name in NAMED:
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return out


def record(cell: str, target: Path, scope: str, commit: str | None, arguments: list[str]) -> int:
    """Runs pytest, writes the result as JSON, and returns pytest's exit code.

    Args:
        cell: Its name.
        target: The file to write.
        scope: "all" or "quick".
        commit: What was tested, or None where nobody knows.
        arguments: For pytest.
    """
    recorder = Recorder()
    start = time.perf_counter()
    code = int(pytest.main(arguments, plugins=[recorder]))
    result: dict[str, Any] = {
        "cell": cell,
        "scope": scope,
        "commit": commit,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "system": platform.system(),
        "versions": installed(),
        "passed": recorder.passed,
        "failed": recorder.failed,
        "skipped": dict(recorder.skipped),
        "seconds": round(time.perf_counter() - start),
        "exit_code": code,
    }
    target.write_text(json.dumps(result, indent=1) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(record(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4] or None, sys.argv[5:]))
