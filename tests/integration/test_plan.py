"""The plan of a load against what a child process then measures, and loads that do not fit."""

import pytest

from benchmarks.memory import can_measure
from benchmarks.plan import CASES, compare

IN_BRIEF = [
    "gpt2, processed",
    "gpt2, processed, io=read",
    "gpt2, processed, live",
    "gpt2-wide, processed, refactor_factored_attn_matrices=True",
    "gpt2-wide, processed, refactor_factored_attn_matrices=True, dtype=bfloat16",
    "gpt2, as it is",
    "gpt2, as it is, load_mode=copy",
    "llama, processed",
    "llama, processed, dtype=auto",
    "llama, as it is",
    "llama, as it is, dtype=auto",
]


def test_the_benchmark_has_enough_combinations():
    assert len({case.label for case in CASES}) == len(CASES) >= 20
    assert {case.shape.partition("-")[0] for case in CASES} == {"gpt2", "neox", "llama", "mistral", "qwen2", "phi3"}


@pytest.mark.skipif(not can_measure(), reason="this system does not say how much memory is private")
@pytest.mark.parametrize("label", IN_BRIEF)
def test_the_plan_is_what_is_measured(label):
    """`python -m benchmarks.plan` is the same for all combinations."""
    found = compare(next(case for case in CASES if case.label == label))
    assert found.holds, found
    assert found.planned_peak >= found.planned_end
