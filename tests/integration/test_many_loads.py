"""Many loads: processes share pages, files that are the same are held once, a switch leaves nothing behind."""

import cProfile
import os
import pstats
import shutil
from dataclasses import replace

import pytest

from benchmarks.checkpoint import make_gpt2
from benchmarks.families import make
from benchmarks.memory import can_measure, measure, private_memory
from benchmarks.processes import weigh_processes, weigh_workers
from benchmarks.stepped_loads import OURS
from tests.tiny_models import VARIANTS, save
from transformer_lens import HookedTransformer
from transformer_lens.loading.loaders import can_assign

MEASURES = pytest.mark.skipif(
    not can_measure() or not can_assign(), reason="takes a system that says what is private, and a torch that assigns"
)
MIB = 1 << 20


@pytest.fixture(scope="module")
def checkpoint():
    """GPT-2's shape with six layers, 259 MiB."""
    return make("gpt2")


def size_of(folder):
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


# Several processes.


@MEASURES
def test_four_processes_hold_one_copy(checkpoint):
    found = weigh_processes([checkpoint] * 4, OURS)
    assert size_of(checkpoint) * 0.9 <= found["proportional"] <= 1.15 * size_of(checkpoint)


@MEASURES
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_forked_workers_hold_one_copy(checkpoint):
    found = weigh_workers(checkpoint, OURS, 4)
    # A worker writes to its own Python objects, and to the buffer of its matrix products (7 MiB on some processors).
    its_own = 20 * MIB
    assert size_of(checkpoint) * 0.9 <= found["proportional"] <= size_of(checkpoint) + 4 * its_own


# Files that are the same.


def blobs(checkpoint, tmp_path):
    """Snapshots of two revisions whose weights are one blob, as the hub's cache keeps them."""
    home = tmp_path / "models--org--name"
    (home / "blobs").mkdir(parents=True)
    os.link(checkpoint / "model.safetensors", home / "blobs" / "weights")
    for number, commit in enumerate("ab"):
        snapshot = home / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (snapshot / "model.safetensors").symlink_to("../../blobs/weights")
        # Each revision has a config of its own.
        config = home / "blobs" / f"config-{number}"
        shutil.copyfile(checkpoint / "config.json", config)
        (snapshot / "config.json").symlink_to(config)
        yield snapshot


def hard_links(checkpoint, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        os.link(checkpoint / "model.safetensors", tmp_path / name / "model.safetensors")
        shutil.copyfile(checkpoint / "config.json", tmp_path / name / "config.json")
        yield tmp_path / name


def copies(checkpoint, tmp_path):
    for name in "ab":
        yield shutil.copytree(checkpoint, tmp_path / name)


@MEASURES
@pytest.mark.parametrize(
    ("kind", "files"), [(blobs, 1), (hard_links, 1), (copies, 2)], ids=["blobs", "hard links", "copies"]
)
def test_files_that_are_the_same_are_held_once(checkpoint, kind, files):
    # Beside the checkpoint: there are no hard links between file systems.
    here = checkpoint.with_name(f".links-{os.getpid()}")
    here.mkdir()
    try:
        folders = list(kind(checkpoint, here))
        found = weigh_processes(folders, OURS)
    finally:
        shutil.rmtree(here)
    assert (files - 0.1) * size_of(checkpoint) <= found["proportional"] <= (files + 0.15) * size_of(checkpoint)


# One after another. The functions that run in the child:


def switches(folders, processed, times):
    """Loads one after another, each looked into by hooks and a cache, and says what there is after each is gone."""
    import gc
    import threading

    import torch

    torch.set_num_threads(1)
    method = HookedTransformer.from_pretrained if processed else HookedTransformer.from_pretrained_no_processing

    def look_into(folder):
        model = method(folder, device="cpu", progress=False)
        seen = []
        model.add_hook("blocks.0.hook_resid_post", lambda value, hook: seen.append(value))
        _, cache = model.run_with_cache(torch.arange(1, 9)[None])
        model.run_with_hooks(
            torch.arange(1, 9)[None],
            fwd_hooks=[("blocks.1.attn.hook_pattern", lambda value, hook: value * 0)],
        )
        assert len(seen) == 2 and "blocks.1.hook_mlp_out" in cache

    def run():
        gc.disable()
        after = []
        for number in range(times):
            look_into(folders[number % len(folders)])
            mappings = open("/proc/self/maps").read()
            after.append(
                {
                    "private": private_memory(),
                    "files": len(os.listdir("/proc/self/fd")),
                    "mappings": mappings.count("\n"),
                    "mapped": mappings.count(".safetensors"),
                    "threads": threading.active_count(),
                }
            )
        return after

    return run


def as_it_is(result):
    return result


@MEASURES
@pytest.mark.parametrize("processed", [False, True], ids=["as it is", "processed"])
def test_a_sweep_leaves_nothing_behind(tmp_path, processed):
    sizes = {"n_layer": 4, "n_embd": 256, "n_head": 8, "vocab_size": 5000, "n_positions": 64}
    folder = make_gpt2(tmp_path / "checkpoint-0", **sizes)
    folders = [folder, *(shutil.copytree(folder, tmp_path / f"checkpoint-{number}") for number in range(1, 20))]
    after = measure(f"{__file__}:switches", [str(each) for each in folders], processed, 20, after="as_it_is").facts
    assert {each["mapped"] for each in after} == {0}
    # What a first use makes for good (tables, threads of torch) is there after the second.
    settled = after[1:]
    for what in ("files", "threads"):
        assert {each[what] for each in settled} == {settled[0][what]}, what
    assert max(each["mappings"] for each in settled) <= settled[0]["mappings"] + 8
    assert max(each["private"] for each in settled) <= settled[0]["private"] + size_of(folder) // 10


# Many layers.


def calls_of(folder, method):
    profile = cProfile.Profile()
    profile.enable()
    method(folder, device="cpu", progress=False)
    profile.disable()
    return pstats.Stats(profile).total_calls


@pytest.mark.parametrize("family", ["gpt2", "llama-gqa"])
@pytest.mark.parametrize("name", ["from_pretrained", "from_pretrained_no_processing"])
def test_work_grows_linearly_with_layers(tmp_path, name, family):
    method = getattr(HookedTransformer, name)
    layers = "n_layer" if family == "gpt2" else "num_hidden_layers"
    calls = {}
    for count in (4, 24, 44):
        variant = replace(VARIANTS[family], settings={**VARIANTS[family].settings, layers: count})
        calls[count] = calls_of(save(variant, tmp_path / str(count)), method)
    assert calls[44] - calls[24] <= 1.02 * (calls[24] - calls[4])
