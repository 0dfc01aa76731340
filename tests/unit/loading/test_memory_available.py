"""What memory can be had, by faked system files, and loads that do not fit."""

import pytest
import torch

from tests.tiny_models import VARIANTS, save
from transformer_lens import HookedTransformer
from transformer_lens.loading import InsufficientMemoryError
from transformer_lens.loading.memory import available


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


def test_every_group_around_the_process_counts(tmp_path):
    """A limit may be on the process's own control group or on any around it."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/user/job\n")
    for path, limit, used in (("", "max", 0), ("user", "9000", 4000), ("user/job", "7000", 1000)):
        folder = tmp_path / "sys/fs/cgroup" / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in (("max", limit), ("current", str(used)), ("stat", "active_file 10\n")):
            (folder / f"memory.{name}").write_text(text)
    assert available.group_room(tmp_path) == 9000 - 4000 + 10
    assert available.group_limit(tmp_path) == 7000


def test_groups_of_the_first_version(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("5:cpu:/a\n4:memory:/b\n")
    for path, limit in (("", 9223372036854771712), ("b", 5000)):
        folder = tmp_path / "sys/fs/cgroup/memory" / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
        (folder / "memory.usage_in_bytes").write_text("1000\n")
        (folder / "memory.stat").write_text("active_file 1\ntotal_active_file 20\ntotal_inactive_file 3\n")
    assert available.available_memory(tmp_path) == 4023
    assert available.group_limit(tmp_path) == 5000
