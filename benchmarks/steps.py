"""A child process that goes on when it is told to: several of them alive at once, each measured between its steps."""

from __future__ import annotations

import importlib.util
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from benchmarks.memory import ROOT, SAMPLE_SECONDS, private_memory, proportional_memory


@dataclass(frozen=True)
class Step:
    """What one step of a child cost.

    Attributes:
        seconds: Its wall time.
        value: What the generator yielded.
        private: Bytes of the child's private memory after it, above the level before its first step.
        peak: The same at the highest sample while it ran.
    """

    seconds: float
    value: Any
    private: int
    peak: int


class Steps:
    """A generator function in a process of its own, advanced from here.

    Used in a ``with`` statement; the child ends with it. The function does its imports before its first ``yield``,
    which is not a step: until then, nothing is measured.
    """

    def __init__(self, target: str, *args: Any, environment: dict[str, str] | None = None):
        heard, said = os.pipe()
        self._output = tempfile.TemporaryFile("w+")
        self._answers = open(heard)
        self._child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.steps", json.dumps({"target": target, "args": args, "answer_to": said})],
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            pass_fds=[said],
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        )
        os.close(said)

    def __enter__(self) -> Steps:
        self._answer()
        self.level = private_memory(self.pid)
        self.proportional_level = proportional_memory(self.pid)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.kill()
        self._child.communicate()
        self._answers.close()
        self._output.close()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    def next(self) -> Step:
        """Lets the child take its next step, and waits for it.

        Raises:
            RuntimeError: If the child failed; the message has what it wrote.
        """
        assert self._child.stdin
        self._child.stdin.write("go\n")
        self._child.stdin.flush()
        peak = private_memory(self.pid)
        while not select.select([self._answers], [], [], SAMPLE_SECONDS)[0]:
            peak = max(peak, private_memory(self.pid))
        answer = self._answer()
        private = answer["private"]
        return Step(answer["seconds"], answer["value"], private - self.level, max(peak, private) - self.level)

    def proportional(self) -> int:
        """Returns by how many bytes the child's proportional share of memory has grown."""
        return proportional_memory(self.pid) - self.proportional_level

    def _answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            self._child.wait()
            self._output.seek(0)
            raise RuntimeError(f"a child of the benchmark failed:\n{self._output.read()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _run(order: dict[str, Any]) -> None:
    """The child: one answer when it is ready, one a step."""
    file, _, name = order["target"].rpartition(":")
    spec = importlib.util.spec_from_file_location("stepped", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    generator: Iterator[Any] = getattr(module, name)(*order["args"])
    answers = os.fdopen(order["answer_to"], "w", buffering=1)
    next(generator)
    print(json.dumps({}), file=answers)
    while sys.stdin.readline():
        start = time.perf_counter()
        value = next(generator)
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "value": value, "private": private_memory()}), file=answers)


if __name__ == "__main__":
    _run(json.loads(sys.argv[1]))
