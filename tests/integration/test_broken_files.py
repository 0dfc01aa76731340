"""What a broken file may cost: the whole corpus, in one process, in little memory."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
READERS = [
    f"tests/unit/loading/test_{name}.py" for name in ("bin_reader", "safetensors_reader", "gguf_reader", "sources")
]
# A hang is what this catches; every answer together takes seconds.
LONGEST_SECONDS = 600


def peak_of(*options: str) -> int:
    """Runs pytest over the corpus in a child and returns its peak memory in bytes."""
    script = (
        "import pytest, resource, sys; code = pytest.main(sys.argv[1:]); "
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
    )
    command = [sys.executable, "-c", script, "-q", "-p", "no:cacheprovider", "-k", "broken or code", *options, *READERS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST_SECONDS)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    peak = next(line for line in reversed(done.stdout.splitlines()) if line.startswith("peak "))
    return int(peak.split()[1]) * (1 if sys.platform == "darwin" else 1024)


def test_the_corpus_takes_little_memory_and_no_process():
    """Every broken file is answered by its error (the child passes), above what collecting the tests takes."""
    assert peak_of() - peak_of("--collect-only") < 200 << 20
