"""Runs cases in interleaved rounds, each in a process of its own, and keeps what was measured or why it was not."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import GIB, available_memory
from benchmarks.memory import Measurement, TooLargeError, measure

LEFT_FREE = GIB
TIMEOUT = 1800.0


@dataclass(frozen=True)
class Case:
    """One thing to measure, again and again.

    Attributes:
        name: By which results are found.
        target: ``"file:function"``, as `measure` takes it.
        args: Of the function.
        python: Interpreter.
        import_root: Folder put first on the import path.
        environment: Variables of the process.
        after: What is asked of the result.
        before: Called before each run: warms or chills files.
    """

    name: str
    target: str
    args: tuple[Any, ...]
    python: Path
    import_root: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)
    after: str | None = None
    before: Callable[[], object] = lambda: None

    def run(self) -> Measurement:
        """Measures once; the process is ended before the machine runs out of memory."""
        self.before()
        return measure(
            self.target,
            *self.args,
            after=self.after,
            python=self.python,
            import_root=self.import_root,
            environment=self.environment,
            timeout=TIMEOUT,
            ceiling=max(available_memory() - LEFT_FREE, LEFT_FREE),
        )


@dataclass
class Outcome:
    """Every measurement of one case; or the reason why it has none, and how far its memory had grown."""

    measurements: list[Measurement] = field(default_factory=list)
    failed: str = ""
    peak_at_failure: int = 0

    def to_json(self) -> dict[str, Any]:
        """Returns plain values; the samples and facts are those of the run of median seconds."""
        if self.failed:
            return {"failed": self.failed, "peak_at_failure": self.peak_at_failure}
        typical = sorted(self.measurements, key=lambda m: m.seconds)[(len(self.measurements) - 1) // 2]
        return {
            "seconds": [m.seconds for m in self.measurements],
            "cpu_seconds": [m.cpu_seconds for m in self.measurements],
            "peak": [m.peak for m in self.measurements],
            "kept": [m.kept for m in self.measurements],
            "returned": [m.returned for m in self.measurements],
            "facts": typical.facts,
            "samples": [[round(seconds, 4), size] for seconds, size in typical.samples],
        }


def run_rounds(
    cases: Sequence[Case], rounds: int, say: Callable[[str], object] = lambda line: None
) -> dict[str, Outcome]:
    """Measures every case once a round; each round begins with another case. What failed is not tried again."""
    found = {case.name: Outcome() for case in cases}
    for number in range(rounds):
        start = number % len(cases) if cases else 0
        for case in [*cases[start:], *cases[:start]]:
            outcome = found[case.name]
            if outcome.failed:
                continue
            try:
                measurement = case.run()
            except TooLargeError as error:
                outcome.failed, outcome.peak_at_failure = str(error), error.peak
            except RuntimeError as error:
                outcome.failed = last_line(str(error))
            else:
                outcome.measurements.append(measurement)
                cost = f"{measurement.seconds:7.2f} s  {measurement.peak / GIB:6.2f} GiB"
                say(f"round {number + 1}/{rounds}  {cost}  {case.name}")
            if outcome.failed:
                say(f"round {number + 1}/{rounds}  {case.name}: {outcome.failed}")
    return found


def last_line(output: str) -> str:
    """Returns what a failed process said: the line that names its error, without the paths of this machine."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    said = (named or lines or ["it ended without a word"])[-1]
    return re.sub(r"(/[\w.+-]+){2,}/?", "…", said)[:300]
