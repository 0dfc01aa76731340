"""What runs in children of test_processed_cache.py."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path


def load(folder, **arguments):
    from transformer_lens import HookedTransformer

    return HookedTransformer.from_pretrained(
        folder, **{"device": "cpu", "progress": False, "cache_processed": True, **arguments}
    )


# For benchmarks.memory.measure.


def measured(folder, load_mode="auto"):
    import transformer_lens  # noqa: F401  # not part of the load

    return lambda: load(folder, load_mode=load_mode)


def facts(model):
    report = model.load_report
    total = sum(p.numel() * p.element_size() for p in model.parameters())
    return {"total": total, "cache": report.processed_cache, "mapped": report.bytes_mapped}


def same(model, reference):
    """Whether parameters are equal in name, bytes and strides."""
    import torch

    found, expected = dict(model.named_parameters()), dict(reference.named_parameters())
    return list(found) == list(expected) and all(
        torch.equal(found[name], expected[name]) and found[name].stride() == expected[name].stride() for name in found
    )


def kill_at_random_times(folder, times):
    """Forks loads and kills each somewhere in the middle, then looks at what the next load makes of it."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("error")
    from transformer_lens.loading.memory import processed

    reference = load(folder, cache_processed=False)
    start = time.perf_counter()
    load(folder)
    seconds = time.perf_counter() - start
    chance = random.Random(0)
    outcomes = []
    for _ in range(times):
        processed.clear()
        child = os.fork()
        if child == 0:
            load(folder)
            os._exit(0)
        time.sleep(chance.uniform(0.0, 1.1 * seconds))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        model = load(folder)
        outcomes.append(f"{'killed' if os.WIFSIGNALED(status) else 'done'} {model.load_report.processed_cache}")
        assert same(model, reference)
        again = load(folder)
        assert again.load_report.processed_cache == "taken" and same(again, reference)
        left = {path.suffix for path in processed.cache_folder().iterdir()}
        assert left <= {".safetensors", ".checked", ".lock"}, left
        assert [processed.verify(entry) for entry in processed.entries()] == [[]]
    print(*sorted(outcomes), sep="\n")


def write_at_once(folder, meeting, flock_always_succeeds):
    """Loads at the moment at which all the others do."""
    import fcntl

    if flock_always_succeeds:
        fcntl.flock = lambda descriptor, how: None
    reference = load(folder, cache_processed=False)
    Path(meeting, str(os.getpid())).touch()
    while len(list(Path(meeting).iterdir())) < 2:
        time.sleep(0.001)
    model = load(folder)
    assert same(model, reference)
    print(model.load_report.processed_cache)
    again = load(folder)
    assert same(again, reference)


if __name__ == "__main__":
    name, folder, *arguments = sys.argv[1:]
    if name == "kill":
        kill_at_random_times(folder, int(arguments[0]))
    else:
        write_at_once(folder, arguments[0], arguments[1] == "True")
