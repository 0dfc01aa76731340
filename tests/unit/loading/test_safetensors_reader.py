"""safetensors and the folders they lie in: what is whole is mapped, what is broken is named. Nothing is guessed."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from transformer_lens.loading.checkpoint import open_checkpoint
from transformer_lens.loading.checkpoint.safetensors import read_header
from transformer_lens.loading.errors import CorruptCheckpointError, LoadingError
from transformer_lens.loading.sources import FolderSource
from transformer_lens.loading.weights import Held

F32 = {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24]}
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 548105171\n"


def whole(header, data=bytes(24)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def changed(**entries) -> bytes:
    return whole({"w": {**F32, **entries}})


def nested(depth: int) -> bytes:
    return b'{"w":' + b"[" * depth + b"]" * depth + b"}"


BROKEN = {
    "empty": (b"", "has 0 bytes"),
    "seven-bytes": (b"\x10" * 7, "has 7 bytes"),
    "lfs-pointer": (LFS, "Git LFS pointer of .* real file of 548105171 bytes.*git lfs pull"),
    "html": (b"<!DOCTYPE html><html>not found</html>", "is it a safetensors file"),
    "header-beyond-file": (struct.pack("<Q", 5000) + b"{}", "its header alone needs 5008.*Fetch it again.*hf download"),
    "header-of-exabytes": (struct.pack("<Q", 1 << 62) + b"{}", "says that its header has"),
    "not-utf-8": (whole(b'{"\xff": 1}'), "cannot be read as a JSON object"),
    "not-json": (whole(b"{w: 1}"), "cannot be read as a JSON object"),
    "no-object": (whole(b"[1, 2]"), "holds a list, not an object"),
    "nested": (whole(nested(100_000)), "cannot be read as a JSON object"),
    "million-lists": (whole(b'{"w":[' + b"[]," * (1 << 20) + b"[]]}"), "more than 1048576 values"),
    "key-twice": (whole(b'{"w":{},"w":{}}'), "'w' stands twice"),
    "nan": (whole(b'{"w":NaN}'), "NaN"),
    "number-of-a-million-digits": (whole(b'{"w":' + b"9" * 1_000_000 + b"}"), "cannot be read as a JSON object"),
    "metadata-list": (whole({"__metadata__": [], "w": F32}), "metadata"),
    "metadata-number": (whole({"__metadata__": {"format": 1}, "w": F32}), "metadata"),
    "entry-is-a-number": (whole({"w": 7}), "something else than dtype"),
    "entry-lacks-offsets": (whole({"w": {"dtype": "F32", "shape": [3, 2]}}), "something else than dtype"),
    "entry-has-more": (changed(code="import os"), "something else than dtype"),
    "unknown-dtype": (changed(dtype="F33"), "'F33', which is not known"),
    "dtype-is-a-list": (changed(dtype=["F32"]), "not known"),
    "negative-axis": (changed(shape=[-3, -2]), r"has the shape \[-3, -2\]"),
    "fractional-axis": (changed(shape=[3.0, 2]), "has the shape"),
    "boolean-axis": (changed(shape=[True, 6]), "has the shape"),
    "shape-is-text": (changed(shape="3x2"), "has the shape 3x2"),
    "too-many-axes": (changed(shape=[1] * 65), "65 axes"),
    "axis-of-10-to-the-12": (changed(shape=[10**12, 10**12]), "more than any machine holds"),
    "huge-behind-zero": (changed(shape=[0, 10**30], data_offsets=[0, 24]), "gives 'w' 24 bytes"),
    "shape-too-small": (changed(shape=[2, 2]), r"gives 'w' 24 bytes; \(2, 2\) in F32 needs 16"),
    "three-offsets": (changed(data_offsets=[0, 24, 24]), "lies at"),
    "offsets-backwards": (changed(data_offsets=[24, 0]), "lies at"),
    "negative-offset": (changed(data_offsets=[-24, 0]), "lies at"),
    "hole-at-start": (
        whole({"w": {**F32, "data_offsets": [8, 32]}}, bytes(32)),
        "leaves 8 bytes before it unused",
    ),
    "overlap": (
        whole({"a": F32, "b": {**F32, "data_offsets": [16, 40]}}, bytes(40)),
        "'b' that overlaps the tensor before it",
    ),
    "same-bytes-twice": (whole({"a": F32, "b": F32}), "overlaps the tensor before it"),
    "cut-off": (
        whole({"w": F32}, bytes(20)),
        "has 93 bytes of the 97 that its header says: a download that stopped.*--force-download",
    ),
    "trailing": (whole({"w": F32}, bytes(30)), "6 more than its header says"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named(tmp_path, name):
    data, words = BROKEN[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(CorruptCheckpointError, match=f"(?s){words}") as error:
        read_header(path)
    assert str(path) in str(error.value)
    assert path.read_bytes() == data


@given(st.binary(max_size=200) | st.binary(max_size=120).map(lambda text: whole(text, bytes(8))))
def test_any_bytes_are_an_error_or_regions_inside_the_file(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "model.safetensors"
    path.write_bytes(data)
    try:
        regions = read_header(path)
    except LoadingError:
        return
    assert all(0 <= region.offset and region.offset + region.nbytes <= len(data) for region in regions.values())


DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int8, torch.uint8, torch.bool]


@given(
    st.lists(
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), max_size=4)),
        min_size=1,
        max_size=6,
    )
)
def test_what_safetensors_writes_is_read_bit_by_bit(tmp_path_factory, entries):
    folder = tmp_path_factory.mktemp("written")
    tensors = {f"t{i}": torch.randint(0, 2, shape).to(dtype) for i, (dtype, shape) in enumerate(entries)}
    save_file(tensors, folder / "model.safetensors")
    for io, held in (("map", Held.MAPPED), ("read", Held.FRESH)):
        weights = open_checkpoint(FolderSource(folder, "x"), {}, lambda key: False, io).weights
        assert set(weights) == set(tensors)
        for name, promise in weights.items():
            made = promise.make()
            assert made.dtype == promise.dtype and tuple(made.shape) == promise.shape and promise.held is held
            assert torch.equal(made, tensors[name])


def test_a_header_of_odd_length_is_mapped_as_well(tmp_path):
    numbers = torch.arange(6.0).view(3, 2)
    for pad in range(8):
        text = json.dumps({"w": F32}).encode() + b" " * pad
        path = tmp_path / f"{pad}.safetensors"
        path.write_bytes(whole(text, numbers.numpy().tobytes()))
        mapped = read_header(path)["w"].map()
        assert torch.equal(mapped, numbers)
        assert torch.equal(mapped @ mapped.t(), numbers @ numbers.t())


def test_a_mapping_is_private_and_its_own(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.ones(300, 70), "v": torch.ones(5)}, path)
    before = path.read_bytes()
    region = read_header(path)["w"]
    first, second = region.map(), region.map()
    first.mul_(3)
    assert first.sum() == 3 * second.sum() and path.read_bytes() == before
    assert first.untyped_storage().data_ptr() != second.untyped_storage().data_ptr()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to count open files")
def test_mappings_hold_no_file_open_and_end_with_their_tensors(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({f"t{i}": torch.randn(13, 7) for i in range(300)}, path)
    before = len(os.listdir("/proc/self/fd"))
    tensors = {name: region.map() for name, region in read_header(path).items()}
    assert len(os.listdir("/proc/self/fd")) == before
    assert str(path) in Path("/proc/self/maps").read_text()
    view = tensors["t7"][2:, 1]
    expected = view.clone()
    del tensors
    assert torch.equal(view, expected)
    del view
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_a_file_that_shrank_is_an_error_not_a_signal(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.ones(300, 70)}, path)
    region = read_header(path)["w"]
    path.write_bytes(path.read_bytes()[:-100])
    for have in (region.map, region.read):
        with pytest.raises(CorruptCheckpointError, match="changed"):
            have()


def test_a_process_may_end_with_tensors_mapped(tmp_path):
    save_file({"w": torch.ones(300, 70)}, tmp_path / "model.safetensors")
    code = (
        "import sys, pathlib; from transformer_lens.loading.checkpoint.safetensors import read_header\n"
        f"sys.kept = read_header(pathlib.Path({str(tmp_path / 'model.safetensors')!r}))['w'].map()\n"
        "import atexit; atexit.register(lambda: print(sys.kept.sum().item()))"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert (child.returncode, child.stdout.strip()) == (0, "21000.0"), child.stderr


INDEX = "model.safetensors.index.json"


def sharded(folder: Path, index=None) -> FolderSource:
    save_file({"h.0.w": torch.ones(3, 2)}, folder / "a.safetensors")
    save_file({"h.1.w": torch.ones(5, 2)}, folder / "b.safetensors")
    weight_map = {"h.0.w": "a.safetensors", "h.1.w": "b.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map} if index is None else index))
    return FolderSource(folder, "the folder")


def mapped(**changes) -> dict:
    return {"weight_map": {"h.0.w": "a.safetensors", "h.1.w": "b.safetensors", **changes}}


BROKEN_INDEX = {
    "no-weight-map": ({"metadata": {}}, "no weight_map"),
    "empty-weight-map": ({"weight_map": {}}, "no weight_map"),
    "weight-map-is-a-list": ({"weight_map": ["a.safetensors"]}, "no weight_map"),
    "up": (mapped(x="../a.safetensors"), "not the name of a file in its own folder. It was not opened"),
    "up-inside": (mapped(x="sub/../../a.safetensors"), "not the name of a file in its own folder"),
    "backslash": (mapped(x="..\\a.safetensors"), "not the name of a file in its own folder"),
    "absolute": (mapped(x="/etc/passwd"), "not the name of a file in its own folder"),
    "drive": (mapped(x="C:a.safetensors"), "not the name of a file in its own folder"),
    "dots": (mapped(x=".."), "not the name of a file in its own folder"),
    "null": (mapped(x="a\0b"), "not the name of a file in its own folder"),
    "longer-than-a-name-can-be": (mapped(x="a" * 300), "not the name of a file in its own folder"),
    "longer-in-bytes": (mapped(x="é" * 128), "not the name of a file in its own folder"),
    "of-kilobytes": (mapped(x="a" * 5000), "not the name of a file in its own folder"),
    "half-a-character": (mapped(x="\ud800"), "not the name of a file in its own folder"),
    "line-break": (mapped(x="a\nb"), "not the name of a file in its own folder"),
    "other-system": (mapped(x="a?.safetensors"), "not the name of a file in its own folder"),
    "blank": (mapped(x=" "), "not the name of a file in its own folder"),
    "nameless": (mapped(x=""), "not the name of a file in its own folder"),
    "number": (mapped(x=7), "not the name of a file in its own folder"),
    "missing-shard": (
        mapped(x="c.safetensors"),
        "lacks 1 of the 3 files that are needed: c.safetensors.*it holds: .*a.safetensors.*hf download .* c.safet",
    ),
    "key-not-in-its-shard": (mapped(x="a.safetensors"), "a.safetensors lacks 'x', which the index"),
}


@pytest.mark.parametrize("name", BROKEN_INDEX)
def test_a_broken_index_is_named(tmp_path, name):
    index, words = BROKEN_INDEX[name]
    with pytest.raises(CorruptCheckpointError, match=f"(?s){words}"):
        open_checkpoint(sharded(tmp_path, index), {}, lambda key: False)


def test_a_key_in_two_shards_is_an_error(tmp_path):
    source = sharded(tmp_path)
    save_file({"h.1.w": torch.ones(5, 2), "h.0.w": torch.ones(3, 2)}, tmp_path / "b.safetensors")
    with pytest.raises(CorruptCheckpointError, match="'h.0.w' in two shards"):
        open_checkpoint(source, {}, lambda key: False)


def test_shards_without_a_wanted_key_are_not_opened(tmp_path):
    source = sharded(tmp_path)
    (tmp_path / "b.safetensors").unlink()
    weights = open_checkpoint(source, {}, lambda key: key.startswith("h.1.")).weights
    assert list(weights) == ["h.0.w"]


def test_a_folder_without_weights_says_what_was_looked_for(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "flax_model.msgpack").write_text("")
    with pytest.raises(CorruptCheckpointError) as error:
        open_checkpoint(FolderSource(tmp_path, "the folder"), {}, lambda key: False)
    for name in ("model.safetensors", INDEX, "pytorch_model.bin", "pytorch_model.bin.index.json", "flax_model.msgpack"):
        assert name in str(error.value)


def test_safetensors_are_preferred(tmp_path):
    save_file({"w": torch.ones(3)}, tmp_path / "model.safetensors")
    torch.save({"w": torch.zeros(3)}, tmp_path / "pytorch_model.bin")
    weights = open_checkpoint(FolderSource(tmp_path, "x"), {}, lambda key: False).weights
    assert torch.equal(weights["w"].make(), torch.ones(3))
