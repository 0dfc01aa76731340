"""What memory can be had, by faked system files, and loads that do not fit."""

import pytest
import torch

from tests.tiny_models import VARIANTS, save
from transformer_lens import HookedTransformer
from transformer_lens.loading import InsufficientMemoryError, Request, prepare
from transformer_lens.loading.memory import arithmetic, available


def fake(root, meminfo=None, **cgroup):
    (root / "proc").mkdir()
    if meminfo is not None:
        (root / "proc/meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:   {meminfo} kB\n")
    folder = root / "sys/fs/cgroup"
    folder.mkdir(parents=True)
    for name, text in cgroup.items():
        (folder / f"memory.{name}").write_text(text)
    return available.available_memory(root)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"meminfo": 5}, 5 * 1024),
        ({"meminfo": 5, "max": "max\n", "current": "7", "stat": ""}, 5 * 1024),
        ({"meminfo": 5, "max": "4000\n", "current": "1000", "stat": "inactive_file 50\nactive_file 7"}, 3057),
        ({"max": "4000\n", "current": "5000", "stat": ""}, 0),
    ],
)
def test_the_least_counts(tmp_path, files, expected):
    assert fake(tmp_path, **files) == expected


@torch.no_grad()
def test_a_load_that_does_not_fit_is_refused(tmp_path, monkeypatch):
    save(VARIANTS["gpt2"], tmp_path)
    monkeypatch.setattr(available, "available_memory", lambda: 1000)
    with pytest.raises(InsufficientMemoryError, match="(?s)nothing was read.*can be had"):
        HookedTransformer.from_pretrained(tmp_path, device="cpu", load_mode="copy")
    HookedTransformer.from_pretrained(tmp_path, device="cpu", check_memory=False)


def test_the_peak_counts_what_is_made_and_one_tensor(tmp_path):
    save(VARIANTS["llama-gqa"], tmp_path)
    prepared = prepare(Request(model_name=str(tmp_path), device="cpu"))
    report = prepared.report()
    assert arithmetic.peak_of(prepared.weights, "assign") <= report.bytes_allocated + report.largest_tensor
    everything = report.bytes_allocated + report.bytes_mapped
    assert arithmetic.peak_of(prepared.weights, "copy") == everything + report.largest_tensor
