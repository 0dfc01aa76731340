"""Whatever lies in the cache's folder, a load ends, and ends right."""

import json
import os
import socket
import struct
import threading
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.cached_loads import load, same
from tests.tiny_models import VARIANTS, save
from transformer_lens.loading import ProcessedCacheWarning
from transformer_lens.loading.memory import processed
from transformer_lens.loading.memory.processed import entry_file, folder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes and owners of files are of POSIX")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save(VARIANTS["gpt2"], tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def reference(checkpoint):
    return load(checkpoint, cache_processed=False)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFORMER_LENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "processed"


def in_time(function):
    """Runs a function in a thread that is given up after a while: what hangs fails, and does not hang the suite."""
    results = []

    def run():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ProcessedCacheWarning)
            try:
                results.append(function())
            except BaseException as error:
                results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(120)
    assert results, "it hangs"
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


def pipe(path):
    os.mkfifo(path)


def listening(path):
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(path.parent, os.O_RDONLY)
        # The path of a socket is short.
        try:
            server.bind(f"/proc/self/fd/{here}/{path.name}")
        finally:
            os.close(here)


def link_to(target):
    return lambda path: path.symlink_to(target)


THINGS = {
    "pipe": pipe,
    "socket": listening,
    "folder": lambda path: path.mkdir(),
    "full folder": lambda path: (path.mkdir(), (path / "file").write_text("text")),
    "link to nothing": link_to("nothing"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to zeros": link_to("/dev/zero"),
    "link to a folder": link_to("/"),
    "nothing in it": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("text"),
    "brackets": lambda path: path.write_text("[" * 100_000),
    "number": lambda path: path.write_text("7"),
    "bytes": lambda path: path.write_bytes(bytes(range(256)) * 9),
    "long header": lambda path: path.write_bytes(struct.pack("<Q", 1 << 62) + b"{}"),
}
PLACES = (folder.ENTRY, folder.CHECKED, folder.LOCK)


def clear_away(path):
    if path.is_dir() and not path.is_symlink():
        for inside in path.iterdir():
            inside.unlink()
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("thing", THINGS)
def test_what_is_no_entry_no_stamp_or_no_lock_is_passed_by(checkpoint, cache, reference, thing):
    if thing == "socket" and not Path("/proc/self/fd").exists():
        pytest.skip("sockets are bound by way of /proc here")
    load(checkpoint)
    (entry,) = cache.glob(f"*{folder.ENTRY}")
    for ending in PLACES:
        path = entry.with_suffix(ending)
        clear_away(path)
        THINGS[thing](path)
        if ending == folder.LOCK:
            # So that it is wanted.
            clear_away(entry)
        for _ in range(2):
            assert same(in_time(lambda: load(checkpoint)), reference)
        in_time(processed.entries)
        clear_away(path)
        load(checkpoint)


@pytest.mark.parametrize("thing", THINGS)
def test_a_folder_that_is_something_else_keeps_nothing(checkpoint, cache, reference, thing):
    if thing in ("folder", "full folder", "socket", "link to a folder"):
        pytest.skip("is a folder, or needs one")
    cache.parent.mkdir(parents=True)
    THINGS[thing](cache)
    assert same(in_time(lambda: load(checkpoint)), reference)
    assert in_time(processed.entries) == []


NAMES = [
    "key.{ours}-{number}-00000000.tmp".replace("{number}", number)
    for number in ("²", "٣", "-1", "0", "99999999999999999999", "1e3", "", "1_0", " 1")
]


@pytest.mark.parametrize("name", [*NAMES, "..tmp", ".tmp", "--.tmp", "a.b.c-d-e.tmp", "\udcff.tmp", "x.safetensors"])
def test_files_of_any_name_are_no_problem(checkpoint, cache, reference, name):
    cache.mkdir(parents=True)
    path = cache / name.replace("{ours}", folder._processes())
    path.write_bytes(b"half")
    os.utime(path, (1e11, 1e11))
    assert same(in_time(lambda: load(checkpoint)), reference)
    in_time(processed.entries)
    assert path.exists()


def test_what_another_user_has_put_there_is_not_taken(checkpoint, cache, reference, monkeypatch):
    load(checkpoint)
    (entry,) = cache.glob(f"*{folder.ENTRY}")
    with monkeypatch.context() as other:
        other.setattr(os, "geteuid", lambda: entry.stat().st_uid + 1)
        with pytest.raises(OSError, match="another user"):
            entry_file.open_entry(entry)
        with pytest.warns(ProcessedCacheWarning, match="another user"):
            model = load(checkpoint)
        assert model.load_report.processed_cache == "kept" and same(model, reference)


@pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="only root gives files away")
def test_what_another_user_says_is_right_is_read(checkpoint, cache, reference):
    load(checkpoint)
    (entry,) = cache.glob(f"*{folder.ENTRY}")
    os.chown(entry.with_suffix(folder.CHECKED), 12345, 12345)
    processed.stamp._found_right.clear()
    assert not processed.stamp.is_stamped(entry)
    model = load(checkpoint)
    assert model.load_report.processed_cache == "taken" and same(model, reference)


def test_a_home_of_nobody_is_a_sentence(checkpoint, monkeypatch):
    monkeypatch.setenv("TRANSFORMER_LENS_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(ValueError, match="TRANSFORMER_LENS_CACHE"):
        load(checkpoint)


# Headers of which the digest is right.


def with_header(path, change):
    """Changes the header of an entry, and gives it the digest of what it is now."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    change(header)
    metadata = header.get("__metadata__")
    if isinstance(metadata, dict) and "digest" in metadata:
        metadata["digest"] = entry_file.NO_DIGEST
    text = json.dumps(header).encode()
    digest = entry_file.header_digest(text).encode()
    text = text.replace(entry_file.NO_DIGEST.encode(), digest)
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "0" * 8, "\ud800", "F16", "2024-13-40", "-1", "deadbeef"]),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from(["shape", "a", "steps"]), inside),
    max_leaves=4,
)
FIELDS = ["format", "kind", "label", "dtype", "created", "place", "state", "tensors", "digest"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_header_that_says_anything_is_no_problem(checkpoint, cache, reference, data):
    load(checkpoint)
    (entry,) = cache.glob(f"*{folder.ENTRY}")

    def change(header):
        metadata = header["__metadata__"]
        what = data.draw(st.sampled_from(["metadata", "inside", "layout", "tensor", "gone"]))
        field = data.draw(st.sampled_from(FIELDS))
        value = data.draw(JSON)
        if what == "metadata":
            metadata[field] = value if data.draw(st.booleans()) else json.dumps(value)
        elif what == "gone":
            metadata.pop(field)
        elif what == "inside":
            field = data.draw(st.sampled_from(["place", "state"]))
            inside = json.loads(metadata[field])
            inside[data.draw(st.sampled_from(sorted(inside)))] = value
            metadata[field] = json.dumps(inside)
        else:
            layout = json.loads(metadata["tensors"])
            name = data.draw(st.sampled_from(sorted(layout)))
            if what == "layout":
                part = data.draw(st.sampled_from(["shape", "stride", "crc32"]))
                if part != "crc32" and data.draw(st.booleans()):
                    value = data.draw(st.lists(st.integers(-3, 200), min_size=1, max_size=4))
                layout[name][part] = value
            else:
                layout[name] = value
            metadata["tensors"] = json.dumps(layout)

    with_header(entry, change)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProcessedCacheWarning)
        processed.entries()
        assert same(load(checkpoint), reference)


def other_shape(header):
    layout = json.loads(header["__metadata__"]["tensors"])
    name = next(name for name, said in layout.items() if len(said["shape"]) == 2)
    said = layout[name]
    said["shape"], said["stride"] = said["shape"][::-1], [said["shape"][0], 1]
    header["__metadata__"]["tensors"] = json.dumps(layout)


def overlapping(header):
    layout = json.loads(header["__metadata__"]["tensors"])
    name, said = next((name, said) for name, said in layout.items() if len(said["shape"]) == 2)
    count = header[name]["shape"][0] * header[name]["shape"][1]
    # Two elements of one place, and as many as there are.
    said["shape"], said["stride"] = [2, count // 2], [0, 2]
    header["__metadata__"]["tensors"] = json.dumps(layout)


def other_dtype(header):
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            entry["dtype"] = "I32"


@pytest.mark.parametrize("change", [other_shape, overlapping, other_dtype])
def test_tensors_that_are_not_those_of_the_load_are_not_taken(checkpoint, cache, reference, change):
    load(checkpoint)
    (entry,) = cache.glob(f"*{folder.ENTRY}")
    with_header(entry, change)
    with pytest.warns(ProcessedCacheWarning, match="made again"):
        model = load(checkpoint)
    assert same(model, reference) and all(p.dtype == torch.float32 for p in model.parameters())
