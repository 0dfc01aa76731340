"""Measures the private memory and the seconds of one call, in a child process.

What is counted is *private* memory: anonymous pages (``RssAnon`` of ``/proc/<pid>/status``), which nobody else can
use and the kernel cannot give back. Pages of a mapped file that were only read are not among them; pages of a private
mapping that were written to are. Two tempting numbers are wrong here: resident size counts mapped pages, and
``VmHWM``, the kernel's own peak, counts them too and never falls, so that imports can hide a load.

The parent samples the child every few milliseconds, from outside, so that neither the sampling nor a call that holds
the interpreter's lock disturbs the other. A peak shorter than a sample can be missed; none that takes a gigabyte is.

This file runs under any Python with torch, also in another environment: it imports nothing but the standard library.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parents[1]
SAMPLE_SECONDS = 0.005
MOST_SAMPLES = 400


@dataclass(frozen=True)
class Measurement:
    """What one call cost.

    Attributes:
        seconds: Wall time of the call.
        peak: Bytes of private memory at the highest sample, above the level before the call.
        kept: Bytes of private memory after the call, its result alive, above the level before it.
        returned: Bytes of private memory after the result went out of scope, without a garbage collection, above the
            level before the call.
        facts: What the function's `after` said of the result.
        cpu_seconds: Processor time of all threads during the call: what a busy machine changes least.
        samples: (seconds since the call began, bytes of private memory above the level before it), thinned out.
    """

    seconds: float
    peak: int
    kept: int
    returned: int
    facts: Any = None
    cpu_seconds: float = 0.0
    samples: tuple[tuple[float, int], ...] = ()


class TooLargeError(RuntimeError):
    """A child that was ended because its private memory grew past the ceiling that it was given."""

    def __init__(self, peak: int, ceiling: int):
        super().__init__(f"needed more than {ceiling / 2**30:.1f} GiB of private memory")
        self.peak = peak
        self.ceiling = ceiling


def can_measure() -> bool:
    """Tells whether this system counts private memory (Linux does)."""
    return Path("/proc/self/status").exists() and "RssAnon" in Path("/proc/self/status").read_text()


def private_memory(pid: int | str = "self") -> int:
    """Returns the bytes of private (anonymous) memory of a process."""
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    raise OSError(f"process {pid} says nothing of its private memory")


def proportional_memory(pid: int | str = "self") -> int:
    """Returns the bytes of memory of a process, where each page counts by its share among those who map it (PSS).

    Programs and libraries do not count: their share changes when a process that has nothing to do with this one ends.
    """
    shares: dict[str, int] = {}
    programs = set()
    path = ""
    for line in Path(f"/proc/{pid}/smaps").read_text(errors="replace").splitlines():
        words = line.split(maxsplit=5)
        if not words[0].endswith(":"):
            path = words[5] if len(words) > 5 else ""
            if "x" in words[1]:
                programs.add(path)
        elif words[0] == "Pss:":
            shares[path] = shares.get(path, 0) + int(words[1]) * 1024
    return sum(share for name, share in shares.items() if not name.startswith("/") or name not in programs)


def mapped_spans(suffix: str = ".safetensors") -> list[tuple[int, int]]:
    """Returns (start, end) of every mapping in this process of a file with this suffix."""
    spans = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(suffix):
            start, _, end = line.split(maxsplit=1)[0].partition("-")
            spans.append((int(start, 16), int(end, 16)))
    return spans


def mapped_bytes(tensors: Sequence[Any], suffix: str = ".safetensors") -> int:
    """Returns how many bytes of the storages of `tensors` lie in mappings of files with this suffix."""
    spans = mapped_spans(suffix)
    storages = {(storage.data_ptr(), storage.nbytes()) for storage in (t.untyped_storage() for t in tensors)}
    return sum(size for at, size in storages if any(start <= at < end for start, end in spans))


def measure(
    target: str,
    *args: Any,
    after: str | None = None,
    python: str | Path = sys.executable,
    import_root: Path | None = ROOT,
    environment: Mapping[str, str] | None = None,
    timeout: float = 600.0,
    ceiling: int | None = None,
) -> Measurement:
    """Calls a function in a fresh process and measures what the function it returns costs.

    Args:
        target: ``"path/to/file.py:name"``. The function is called with `args`, does its imports and returns a function
            of no arguments: that one is measured.
        *args: Arguments for the function; JSON-able.
        after: Name of a function in the same file, called with the result, outside the measured time; what it returns
            must be JSON-able.
        python: Interpreter that runs the child.
        import_root: Folder put first on the child's import path; None adds none.
        environment: Variables added to the child's environment.
        timeout: Seconds after which the child is ended.
        ceiling: Bytes of private memory above which the child is ended; None sets no limit.

    Returns:
        The measurement.

    Raises:
        TooLargeError: If the child grew past `ceiling`.
        RuntimeError: If the child failed; the message has what it wrote.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    heard, said = os.pipe()
    order = {
        "target": target,
        "args": args,
        "after": after,
        "import_root": str(import_root) if import_root else None,
        "answer_to": said,
    }
    with tempfile.TemporaryFile("w+") as output, open(heard) as answers:
        child = subprocess.Popen(
            [str(python), str(Path(__file__).resolve()), json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[said],
            text=True,
            env={**inherited, **(environment or {})},
        )
        os.close(said)
        _let_it_die_first(child.pid)
        watchdog = threading.Timer(timeout, child.kill)
        watchdog.start()
        try:
            answer = _converse(child, answers, ceiling)
        finally:
            watchdog.cancel()
            child.kill()
            child.communicate()
        if answer is None:
            output.seek(0)
            raise RuntimeError(f"{target}{args} failed in its process:\n{output.read()}")
    return answer


def _converse(child: subprocess.Popen[str], answers: TextIO, ceiling: int | None) -> Measurement | None:
    """Follows a child from ready to done, sampling while it works; None if it died."""
    if not answers.readline():
        return None
    level = private_memory(child.pid)
    assert child.stdin
    start = time.perf_counter()
    child.stdin.write("go\n")
    child.stdin.flush()
    samples = [(0.0, 0)]
    while not select.select([answers], [], [], SAMPLE_SECONDS)[0]:
        private = _private_memory_or_zero(child.pid)
        samples.append((time.perf_counter() - start, private - level))
        if ceiling is not None and private > ceiling:
            raise TooLargeError(max(growth for _, growth in samples), ceiling)
    called, described = answers.readline(), answers.readline()
    if not described:
        return None
    done = {**json.loads(called), **json.loads(described)}
    # By the child's clock, which began a little later than ours.
    samples.append((max(done["seconds"], samples[-1][0]), done["kept"] - level))
    return Measurement(
        seconds=done["seconds"],
        peak=max(growth for _, growth in samples),
        kept=done["kept"] - level,
        returned=done["returned"] - level,
        facts=done["facts"],
        cpu_seconds=done["cpu_seconds"],
        samples=thinned(samples),
    )


def thinned(samples: Sequence[tuple[float, int]], most: int = MOST_SAMPLES) -> tuple[tuple[float, int], ...]:
    """Returns at most about `most` samples, of each run of neighbours the highest, so that no peak is lost."""
    step = max(1, -(-len(samples) // most))
    return tuple(max(samples[at : at + step], key=lambda sample: sample[1]) for at in range(0, len(samples), step))


def _let_it_die_first(pid: int) -> None:
    """Asks the kernel to end this child before anything else, should memory run out."""
    try:
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000")
    except OSError:  # no such file on this system, or the child just ended
        return


def _private_memory_or_zero(pid: int) -> int:
    try:
        return private_memory(pid)
    except OSError:  # the child just ended
        return 0


def _run(order: Mapping[str, Any]) -> None:
    """The child: prepares, waits for the word, calls, reports."""
    if order["import_root"]:
        sys.path.insert(0, order["import_root"])
    # The folder of this file goes last: none of its names may hide a library's.
    sys.path.append(sys.path.pop(sys.path.index(str(Path(__file__).resolve().parent))))
    file, _, name = order["target"].rpartition(":")
    spec = importlib.util.spec_from_file_location("measured", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    call: Callable[[], Any] = getattr(module, name)(*order["args"])
    gc.collect()
    gc.freeze()
    answers = os.fdopen(order["answer_to"], "w", buffering=1)
    print("ready", file=answers)
    sys.stdin.readline()
    start, cpu_start = time.perf_counter(), time.process_time()
    result = call()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    # Said at once: what is asked of the result below must not count as the call's.
    called = {"seconds": seconds, "cpu_seconds": cpu_seconds, "kept": private_memory()}
    print(json.dumps(called), file=answers)
    facts = getattr(module, order["after"])(result) if order["after"] else None
    del result
    print(json.dumps({"returned": private_memory(), "facts": facts}), file=answers)


if __name__ == "__main__":
    _run(json.loads(sys.argv[1]))
