"""Processed weights that are kept: the next load has the same numbers for nothing, whatever happens in between."""

import dataclasses
import errno
import fcntl
import gc
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.checkpoint import make_gpt2
from benchmarks.memory import can_measure, measure
from tests.integration.cached_loads import load, same
from tests.tiny_models import VARIANTS, make_model, save
from transformer_lens import HookedTransformer
from transformer_lens.loading import ProcessedCacheWarning
from transformer_lens.loading.memory import processed
from transformer_lens.loading.memory.processed import key, write

CHILD = Path(__file__).with_name("cached_loads.py")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFORMER_LENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "processed"


@pytest.fixture
def folder(tmp_path):
    return save(VARIANTS["gpt2"], tmp_path / "model")


def outcome(model):
    return model.load_report.processed_cache


def only_entry(cache):
    (path,) = cache.glob("*.safetensors")
    return path


# What a hit is.


@pytest.mark.parametrize("variant", ["gpt2", "gpt2-inner-inverse-untied", "gpt-neox", "llama-gqa", "phi3-gqa"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"dtype": "bfloat16"},
        {"refactor_factored_attn_matrices": True},
        {"fold_ln": False, "center_writing_weights": False},
        {"load_mode": "copy"},
        {"first_n_layers": 1},
    ],
    ids=str,
)
def test_the_second_load_is_the_first(variant, arguments, tmp_path):
    saved = save(VARIANTS[variant], tmp_path / "model")
    plain = load(saved, cache_processed=False, **arguments)
    first, second = load(saved, **arguments), load(saved, **arguments)
    assert (outcome(plain), outcome(first), outcome(second)) == ("", "kept", "taken")
    assert same(first, plain) and same(second, plain)
    assert second.cfg.to_dict() == first.cfg.to_dict() == plain.cfg.to_dict()
    if "load_mode" not in arguments:
        # What is made is what the checkpoint has nothing for, and nothing has changed: zeros.
        zeros = sum(second.get_parameter(name).nbytes for name in second.load_report.zero_filled)
        assert second.load_report.bytes_allocated <= zeros


def test_a_bfloat16_checkpoint_and_auto(tmp_path):
    saved = save(VARIANTS["llama"], tmp_path / "model", torch.bfloat16)
    plain, first, second = (load(saved, dtype="auto", cache_processed=wanted) for wanted in (False, True, True))
    assert outcome(second) == "taken" and same(second, plain) and same(first, plain)
    assert second.W_Q.dtype == torch.bfloat16


def test_what_nothing_changes_stays_the_checkpoints(tmp_path, cache):
    saved = save(VARIANTS["llama"], tmp_path / "model")
    load(saved)
    # RMS norms centre nothing: what writes to the residual stream is mapped as it is.
    assert not any("W_O" in name or "W_out" in name for name in load_file(only_entry(cache)))
    assert any("W_in" in name for name in load_file(only_entry(cache)))


def test_hooks_run_and_an_edit_stays_in_the_model(folder, cache):
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    first, second = load(folder), load(folder)
    before = only_entry(cache).read_bytes()
    seen = []
    logits = second.run_with_hooks(
        tokens, fwd_hooks=[("blocks.1.hook_mlp_out", lambda value, hook: seen.append(value))]
    )
    assert torch.equal(logits, first(tokens)) and len(seen) == 1
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(1.0)
    assert only_entry(cache).read_bytes() == before
    assert same(load(folder), first)


def test_a_subclass_and_a_copy(folder):
    class Sub(HookedTransformer):
        pass

    load(folder)
    model = Sub.from_pretrained(folder, device="cpu", cache_processed=True, load_mode="copy")
    assert type(model) is Sub and outcome(model) == "taken"
    assert model.load_report.bytes_mapped == 0 and model.load_report.bytes_allocated > 0


def test_the_entry_is_read_where_io_says_so(folder):
    first = load(folder)
    model = load(folder, io="read")
    assert outcome(model) == "taken" and same(model, first)
    assert model.load_report.bytes_mapped == 0 and model.load_report.bytes_allocated > 0


def test_the_report_is_written_down(folder, cache):
    for said in ("kept", "taken"):
        report = load(folder).load_report
        assert report.processed_cache == said and report.processed_cache_file == str(only_entry(cache))
        assert type(report).from_json(report.to_json()) == report
        assert f"processed weights {said}: {only_entry(cache)}" in str(report)


# The key.


def another_folder(folder):
    copy = folder.with_name("another")
    shutil.copytree(folder, copy)
    return copy


@pytest.mark.parametrize(
    "arguments",
    [
        {"fold_ln": False}, {"center_writing_weights": False}, {"center_unembed": False}, {"fold_value_biases": False},
        {"refactor_factored_attn_matrices": True}, {"dtype": "bfloat16"}, {"dtype": "float64"}, {"n_ctx": 32},
        {"first_n_layers": 1},
    ],
    ids=str,
)  # fmt: skip
def test_other_arguments_are_another_entry(folder, cache, arguments):
    first = load(folder)
    other = load(folder, **arguments)
    assert outcome(other) == "kept" and len(processed.entries()) == 2
    assert same(other, load(folder, cache_processed=False, **arguments))
    assert outcome(load(folder)) == "taken" and same(load(folder), first)


def test_what_changes_no_weight_is_the_same_entry(tmp_path, monkeypatch):
    saved = save(VARIANTS["llama"], tmp_path / "model")
    load(saved)
    monkeypatch.chdir(tmp_path)
    for arguments in (
        # Centring is not legal before an RMS norm.
        {"center_writing_weights": False},
        {"default_prepend_bos": False},
        {"n_ctx": 32},
        {"load_mode": "copy"},
    ):
        assert outcome(load(saved, **arguments)) == "taken", arguments
    assert outcome(load("./model")) == "taken"
    assert load(saved, default_prepend_bos=False).cfg.default_prepend_bos is False
    assert load(saved, n_ctx=32).cfg.n_ctx == 32


def test_another_folder_is_another_entry(folder):
    load(folder)
    assert outcome(load(another_folder(folder))) == "kept"


def other_numbers(folder):
    path = folder / "model.safetensors"
    tensors = {name: tensor + 1 for name, tensor in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})


def same_size_and_time(folder):
    """In place, with the time stamp put back."""
    path = folder / "model.safetensors"
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\x00\x00\x80\x3f")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def other_config(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "layer_norm_epsilon": 0.5}))


@pytest.mark.parametrize("change", [other_numbers, same_size_and_time, other_config])
def test_a_changed_checkpoint_makes_its_entry_stale(folder, cache, change):
    load(folder)
    change(folder)
    with pytest.warns(ProcessedCacheWarning, match="made again: .* changed since the entry was written"):
        again = load(folder)
    assert outcome(again) == "kept" and same(again, load(folder, cache_processed=False))
    assert len(list(cache.glob("*.safetensors"))) == 1
    assert outcome(load(folder)) == "taken" and same(load(folder), again)


@pytest.mark.parametrize("what", ["transformer_lens", "torch", "format"])
def test_another_version_is_another_entry(folder, monkeypatch, what):
    load(folder)
    if what == "format":
        monkeypatch.setattr(key, "FORMAT", key.FORMAT + 1)
    else:
        now = key.versions()
        monkeypatch.setattr(key, "versions", lambda: {**now, what: "99.0"})
    assert outcome(load(folder)) == "kept" and len(processed.entries()) == 2


def hub_snapshot(root, folder, commit):
    """Returns a snapshot as the hub's cache has it: links to blobs that are named by their content."""
    home = root / "models--org--name"
    snapshot = home / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (home / "blobs").mkdir(exist_ok=True)
    for path in folder.iterdir():
        blob = home / "blobs" / f"etag-of-{path.name}"
        if not blob.exists():
            shutil.copy2(path, blob)
        (snapshot / path.name).symlink_to(blob)
    return snapshot


def test_a_snapshot_of_the_hub_is_known_by_its_commit_and_blobs(folder, tmp_path):
    load(hub_snapshot(tmp_path / "hub", folder, "c1"))
    elsewhere = shutil.copytree(tmp_path / "hub", tmp_path / "moved", symlinks=True)
    for link in (elsewhere / "models--org--name/snapshots/c1").iterdir():
        blob = elsewhere / "models--org--name/blobs" / link.readlink().name
        link.unlink()
        link.symlink_to(blob)
    assert outcome(load(elsewhere / "models--org--name/snapshots/c1")) == "taken"
    assert outcome(load(hub_snapshot(tmp_path / "hub", folder, "c2"))) == "kept"


# peft itself calls what transformers has renamed, and warns of what it does by itself.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_adapters_count(tmp_path, folder):
    peft = pytest.importorskip("peft")
    for rank in (2, 3):
        lora = peft.LoraConfig(r=rank, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False)
        peft.get_peft_model(make_model(VARIANTS["gpt2"]), lora).save_pretrained(tmp_path / f"adapter-{rank}")
    load(folder)
    plain = load(folder, adapter=tmp_path / "adapter-2", cache_processed=False)
    for adapter, said in (("adapter-2", "kept"), ("adapter-2", "taken"), ("adapter-3", "kept")):
        model = load(folder, adapter=tmp_path / adapter)
        assert outcome(model) == said and same(model, plain) == (adapter == "adapter-2")


@pytest.mark.parametrize("processed", [True, False])
def test_a_gguf_file_is_unpacked_once(tmp_path, processed):
    gguf = pytest.importorskip("gguf")
    from tests.unit.loading.test_gguf_reader import as_gguf

    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
    variant = dataclasses.replace(VARIANTS["llama"], settings={**VARIANTS["llama"].settings, **sizes})
    packed = as_gguf(make_model(variant), tmp_path / "m.gguf", gguf.GGMLQuantizationType.Q8_0)
    method = HookedTransformer.from_pretrained if processed else HookedTransformer.from_pretrained_no_processing
    plain, first, second = (
        method(packed, device="cpu", progress=False, cache_processed=wanted) for wanted in (False, True, True)
    )
    assert (outcome(first), outcome(second)) == ("kept", "taken")
    assert same(first, plain) and same(second, plain)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_takes_what_lies_on_the_disk(folder):
    plain, first, second = (load(folder, device="cuda", cache_processed=wanted) for wanted in (False, True, True))
    assert (outcome(first), outcome(second)) == ("kept", "taken") and second.W_E.device.type == "cuda"
    assert same(first, plain) and same(second, plain)


# Who asks, and who is refused.


@pytest.mark.parametrize(
    ("said", "argument", "expected"),
    [("1", None, "kept"), ("0", None, ""), ("", None, ""), ("1", False, ""), ("0", True, "kept"), ("on", None, "kept")],
)
def test_the_argument_wins_over_the_environment(folder, monkeypatch, said, argument, expected):
    monkeypatch.setenv("TRANSFORMER_LENS_CACHE_PROCESSED", said)
    assert outcome(load(folder, cache_processed=argument)) == expected


def test_nonsense_in_the_environment_is_refused(folder, monkeypatch):
    monkeypatch.setenv("TRANSFORMER_LENS_CACHE_PROCESSED", "perhaps")
    with pytest.raises(ValueError, match="'perhaps' is neither 1 nor 0"):
        load(folder, cache_processed=None)


def test_a_live_model_is_not_kept(folder, cache):
    model = load(None, hf_model=make_model(VARIANTS["gpt2"]))
    assert outcome(model) == "not kept" and "live model" in model.load_report.processed_cache_reason
    assert not cache.exists()


@pytest.mark.parametrize("io", ["auto", "read"])
def test_what_is_not_changed_is_not_kept(folder, cache, io):
    model = HookedTransformer.from_pretrained_no_processing(folder, device="cpu", io=io, cache_processed=True)
    assert outcome(model) == "not kept" and "no weight is changed" in model.load_report.processed_cache_reason
    assert not cache.exists()


def test_a_change_of_dtype_alone_is_kept(folder):
    for said in ("kept", "taken"):
        model = HookedTransformer.from_pretrained_no_processing(
            folder, device="cpu", dtype="bfloat16", cache_processed=True
        )
        assert outcome(model) == said and model.W_E.dtype == torch.bfloat16


# Entries that are broken.


def truncated(path):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1000)


def emptied(path):
    path.write_bytes(b"")


def flipped(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def header_flipped(path):
    flipped(path, path.read_bytes().index(b"shape") + 12)


def stride_flipped(path):
    at = path.read_bytes().index(b"stride") + 12
    flipped(path, at)


def data_flipped(path):
    flipped(path, path.stat().st_size - 101)


def of_somebody_else(path):
    save_file({"a": torch.zeros(3)}, path)


def never_finished(path):
    content = path.read_bytes()
    digest = content[content.index(b'"digest": "') + 11 :][:32]
    path.write_bytes(content.replace(digest, b"0" * 32))


def zeros_after_power_loss(path):
    length = int.from_bytes(path.read_bytes()[:8], "little")
    path.write_bytes(path.read_bytes()[: 8 + length].ljust(path.stat().st_size, b"\0"))


BREAKS = [
    truncated, emptied, header_flipped, stride_flipped, data_flipped, of_somebody_else, never_finished,
    zeros_after_power_loss,
]  # fmt: skip


@pytest.mark.parametrize("damage", BREAKS)
def test_a_broken_entry_is_found_and_made_again(folder, cache, damage):
    reference = load(folder)
    damage(only_entry(cache))
    (entry,) = processed.entries()
    assert processed.verify(entry)
    with pytest.warns(ProcessedCacheWarning, match="made again"):
        again = load(folder)
    assert outcome(again) == "kept" and same(again, reference)
    assert outcome(load(folder)) == "taken" and processed.verify(processed.entries()[0]) == []


def test_numbers_are_read_again_after_a_new_start(folder, cache, monkeypatch):
    """A flip that no time stamp shows is found once the machine has been started anew."""
    reference = load(folder)
    path = only_entry(cache)
    data_flipped(path)
    processed.stamp.stamp(path)
    assert outcome(load(folder)) == "taken"
    monkeypatch.setattr(processed.stamp, "boot", lambda: "another")
    with pytest.warns(ProcessedCacheWarning, match="other numbers than were written"):
        assert same(load(folder), reference)


def test_an_entry_without_stamp_is_read_once(folder, cache, monkeypatch):
    load(folder)
    read = []
    monkeypatch.setattr(processed.stamp, "_found_right", set())
    monkeypatch.setattr(processed.lookup, "damaged", lambda entry: read.append(entry.path) or [])
    only_entry(cache).with_suffix(".checked").write_text("{ torn")
    for _ in range(2):
        assert outcome(load(folder)) == "taken"
    assert read == [only_entry(cache)]


def test_an_entry_that_goes_after_it_was_found(folder, monkeypatch):
    reference = load(folder)
    check = processed.Lookup.check

    def gone(self):
        check(self)
        processed.clear()

    monkeypatch.setattr(processed.Lookup, "check", gone)
    with pytest.warns(ProcessedCacheWarning, match="made again"):
        again = load(folder)
    assert outcome(again) == "kept" and same(again, reference)


def test_a_model_outlives_its_entry(folder):
    reference = load(folder, cache_processed=False)
    load(folder)
    model = load(folder)
    assert processed.clear() > 0 and processed.entries() == []
    assert same(model, reference)


# Writing that fails.


def not_kept(folder, cache, match):
    with pytest.warns(ProcessedCacheWarning, match=match):
        model = load(folder)
    assert outcome(model) == "not kept"
    assert same(model, load(folder, cache_processed=False))
    assert not cache.is_dir() or list(cache.iterdir()) == []


@pytest.mark.parametrize("write_number", [1, 2, 9])
def test_a_disk_that_fills_while_writing(folder, cache, monkeypatch, write_number):
    real, count = write._write, []

    def full(file, tensor):
        count.append(tensor)
        if len(count) == write_number:
            file.write(b"some of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file, tensor)

    monkeypatch.setattr(write, "_write", full)
    not_kept(folder, cache, "No space left")


def test_a_disk_that_is_known_to_be_too_small(folder, cache, monkeypatch):
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(write.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    not_kept(folder, cache, "the disk has not as many")


@pytest.fixture
def mounted(cache):
    """A file system of 1 MiB in the cache's place; tests make it smaller."""
    cache.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(cache)], capture_output=True)
    if done.returncode:
        pytest.skip(f"no permission to mount a small disk: {done.stderr.decode().strip()}")
    yield cache
    # Mappings of its files keep it busy.
    gc.collect()
    subprocess.run(["umount", "-l", str(cache)], check=True)


@pytest.mark.parametrize("is_asked", [True, False], ids=["asked how full", "not asked"])
def test_a_full_disk(folder, mounted, monkeypatch, is_asked):
    subprocess.run(["mount", "-o", "remount,size=64k", str(mounted)], check=True)
    if not is_asked:
        usage = shutil.disk_usage(folder)
        monkeypatch.setattr(write.shutil, "disk_usage", lambda path: usage)
    not_kept(folder, mounted, "takes no entry")


def test_a_read_only_disk(folder, mounted):
    subprocess.run(["mount", "-o", "remount,ro,size=1m", str(mounted)], check=True)
    not_kept(folder, mounted, "Read-only file system")


def test_a_read_only_folder(folder, cache):
    cache.mkdir(parents=True)
    cache.chmod(0o555)
    try:
        if os.access(cache, os.W_OK):
            pytest.skip("this user may write to read-only folders")
        not_kept(folder, cache, "Permission denied")
    finally:
        cache.chmod(0o755)


def test_a_folder_that_is_a_file(folder, cache):
    cache.parent.mkdir()
    cache.write_text("in the way")
    with pytest.warns(ProcessedCacheWarning, match="takes no entry"):
        assert outcome(load(folder)) == "not kept"


def test_a_checkpoint_that_changes_while_it_is_read(folder, cache, monkeypatch):
    real = processed.Lookup.keep

    def later(self, module):
        os.utime(folder / "model.safetensors", ns=(1, 1))
        return real(self, module)

    monkeypatch.setattr(processed.Lookup, "keep", later)
    with pytest.warns(ProcessedCacheWarning, match="changed while they were read"):
        assert outcome(load(folder)) == "not kept"
    assert processed.entries() == []


def test_what_dead_processes_left_is_removed(folder, cache, tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    load(folder)
    ours = processed.folder.temporary_path(only_entry(cache))
    left = ours.with_name(ours.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-"))
    elsewhere = ours.with_name("key.ffffffff-1-00000000.tmp")
    abandoned = ours.with_name("key.ffffffff-2-00000000.tmp")
    for path in (ours, left, elsewhere, abandoned):
        path.write_bytes(b"half")
    os.utime(abandoned, (0, 0))
    load(another_folder(folder))
    assert {path for path in cache.iterdir() if path.suffix == ".tmp"} == {ours, elsewhere}


# Other processes.


def child(*arguments):
    return subprocess.Popen(
        [sys.executable, str(CHILD), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def said(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.split("\n")[:-1]


@pytest.fixture(scope="module")
def medium(tmp_path_factory):
    """A checkpoint of 20 MB: writing it takes long enough to be killed in the middle."""
    sizes = {"n_layer": 4, "n_embd": 256, "n_head": 8, "vocab_size": 5000, "n_positions": 64}
    return make_gpt2(tmp_path_factory.mktemp("medium") / "gpt2", **sizes)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_killed_load_leaves_nothing_wrong(medium):
    outcomes = said(child("kill", medium, 30))
    assert len(outcomes) == 30
    # Some were killed before the entry was there, and the next load made it.
    assert outcomes.count("killed kept") >= 3, outcomes


@pytest.mark.parametrize("flock_always_succeeds", [False, True])
def test_two_processes_write_at_once(medium, cache, tmp_path, flock_always_succeeds):
    (tmp_path / "meeting").mkdir()
    both = [child("race", medium, tmp_path / "meeting", flock_always_succeeds) for _ in range(2)]
    outcomes = [line for process in both for line in said(process)]
    assert "kept" in outcomes and set(outcomes) <= {"kept", "not kept", "taken"}
    (entry,) = processed.entries()
    assert processed.verify(entry) == [] and same(load(medium), load(medium, cache_processed=False))
    assert {path.suffix for path in cache.iterdir()} <= {".safetensors", ".checked", ".lock"}


def test_who_finds_the_lock_taken_leaves_the_work(folder, cache):
    with write.turn(lock_path(folder, cache)) as is_ours:
        assert is_ours
        model = load(folder)
    assert outcome(model) == "not kept" and "another process" in model.load_report.processed_cache_reason
    assert outcome(load(folder)) == "kept"


def lock_path(folder, cache):
    """Returns where the entry of a folder will be."""
    load(folder)
    path = only_entry(cache)
    processed.clear()
    return path


def test_a_file_system_without_locks(folder, monkeypatch):
    def flock(descriptor, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert [outcome(load(folder)) for _ in range(2)] == ["kept", "taken"]


@pytest.mark.skipif(not can_measure(), reason="this system does not say how much memory is private")
def test_a_mapped_load_takes_no_memory_and_writing_takes_one_model(tmp_path_factory):
    saved = make_gpt2(tmp_path_factory.mktemp("large") / "gpt2", n_layer=12, vocab_size=20000)
    first = measure(f"{CHILD}:measured", str(saved), after="facts")
    second = measure(f"{CHILD}:measured", str(saved), after="facts")
    copied = measure(f"{CHILD}:measured", str(saved), "copy", after="facts")
    total = first.facts["total"]
    assert (first.facts["cache"], second.facts["cache"], copied.facts["cache"]) == ("kept", "taken", "taken")
    assert first.peak <= 1.05 * total + 20000 * 1024 * 4
    assert second.peak <= 0.02 * total and second.facts["mapped"] >= 0.99 * total
    assert copied.peak <= 1.05 * total + 20000 * 1024 * 4


# The cache as a whole.


def test_entries_say_what_they_are(folder, cache):
    assert processed.entries() == [] and processed.clear() == 0
    load(folder)
    (entry,) = processed.entries()
    assert entry.path == only_entry(cache) and entry.key == entry.path.stem and entry.label == str(folder)
    assert entry.nbytes == entry.path.stat().st_size and entry.dtype == "float32" and entry.problem == ""
    assert entry.flags == ("fold_ln", "fold_value_biases", "center_writing_weights", "center_unembed")
    load(folder)
    assert processed.entries()[0].last_used >= entry.last_used
    assert dataclasses.replace(processed.entries()[0], last_used=entry.last_used) == entry


def test_clear_takes_keys(folder, cache):
    load(folder)
    load(folder, dtype="bfloat16")
    keep, drop = processed.entries()
    with pytest.raises(KeyError, match="has no entry 'nonsense'"):
        processed.clear(["nonsense", drop.key])
    assert processed.clear([drop.key]) >= drop.nbytes
    assert [entry.key for entry in processed.entries()] == [keep.key]
    assert processed.clear() >= keep.nbytes and list(cache.iterdir()) == []


def test_the_folder_is_where_platformdirs_says(monkeypatch):
    import platformdirs

    monkeypatch.delenv("TRANSFORMER_LENS_CACHE")
    expected = Path(platformdirs.user_cache_dir("transformer_lens", appauthor=False)) / "processed"
    assert processed.cache_folder() == expected


def test_any_reader_of_safetensors_reads_an_entry(folder, cache):
    model = load(folder)
    stored = load_file(only_entry(cache))
    for name, tensor in stored.items():
        parameter = model.get_parameter(name)
        assert torch.equal(tensor.flatten().sort().values, parameter.detach().flatten().sort().values)


class TestCommands:
    @pytest.fixture
    def run(self):
        pytest.importorskip("typer")
        from typer.testing import CliRunner

        from transformer_lens.cli.cache import app

        return lambda *arguments: CliRunner().invoke(app, list(arguments))

    def test_list(self, run, folder, cache):
        assert json.loads(run("list", "--json").stdout) == {"folder": str(cache), "entries": []}
        load(folder)
        (entry,) = json.loads(run("list", "--json").stdout)["entries"]
        assert entry["key"] == only_entry(cache).stem and entry["label"] == str(folder)
        assert entry["key"][:12] in run("list").stdout

    def test_verify(self, run, folder, cache):
        load(folder)
        key = only_entry(cache).stem
        done = run("verify", "--json")
        assert done.exit_code == 0 and json.loads(done.stdout) == {"entries": {key: []}, "broken": []}
        data_flipped(only_entry(cache))
        done = run("verify", key[:5], "--json")
        assert done.exit_code == 1 and json.loads(done.stdout)["broken"] == [key]
        assert run("verify").exit_code == 1
        truncated(only_entry(cache))
        assert "broken" in run("list").stdout and run("verify").exit_code == 1

    def test_clear(self, run, folder, cache):
        load(folder)
        assert run("clear", "nonsense").exit_code == 2
        done = run("clear", only_entry(cache).stem[:8], "--json")
        assert done.exit_code == 0 and json.loads(done.stdout)["removed"] == 1
        load(folder)
        assert run("clear").exit_code == 0 and list(cache.iterdir()) == []
