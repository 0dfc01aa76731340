"""What a pickle of a stranger may cost: every one is answered, with little memory, whatever it describes."""

import io
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transformer_lens.loading.checkpoint import records
from transformer_lens.loading.checkpoint.bin_file import read_nested, read_records
from transformer_lens.loading.checkpoint.records import _STEPS, Refused, read_description, refuse_what_never_ends
from transformer_lens.loading.errors import CorruptCheckpointError

START = b"\x80\x02"


def text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def tower(push: bytes, join: bytes, height: int = 60) -> bytes:
    """A value of values of values: twice the one below, which is remembered and recalled."""
    return b"(" + push + b"q\x00" + join * height + b"t"


PAIRS, LISTS = tower(b")", b"h\x00\x86q\x00"), tower(b"]", b"](h\x00h\x00eq\x00")
ENTRIES = b"}" + b"(" + text("a") + b"K\x01"
REFUSED = {
    "key-is-a-tuple": (b"}" + PAIRS + b"K\x01s.", "a tuple as a key"),
    "key-is-a-list": (b"}]K\x01s.", "a list as a key"),
    "key-is-none": (b"}NK\x01s.", "a NoneType as a key"),
    "key-is-true": (b"}\x88K\x01s.", "a bool as a key"),
    "key-is-a-fraction": (b"}G" + bytes(8) + b"K\x01s.", "a float as a key"),
    "key-is-a-large-number": (b"}\x8a\xff" + b"\x7f" * 255 + b"K\x01s.", "a int as a key"),
    "key-is-a-negative-number": (b"}J\xff\xff\xff\xffK\x01s.", "a int as a key"),
    "key-is-a-storage-type": (b"}ctorch\nFloatStorage\nK\x01s.", "a StorageType as a key"),
    "keys-at-once": (b"}(K\x01K\x02" + PAIRS + b"K\x03u.", "a tuple as a key"),
    "key-twice": (ENTRIES + text("a") + b"K\x02u.", "sets 'a' twice"),
    "key-without-value": (ENTRIES + text("b") + b"u.", "a key has no value"),
    "dict-of-lists": (b"ccollections\nOrderedDict\n(]]e\x85R.", "broken"),
    "dict-by-arguments": (b"ccollections\nOrderedDict\n]]a\x85R.", "fills an OrderedDict by arguments"),
    "dict-of-itself": (b"ccollections\nOrderedDict\n)Rq\x00h\x00\x85R.", "cannot be called"),
    "call-of-a-storage-type": (b"ctorch\nFloatStorage\n)R.", "cannot be called"),
    "call-with-a-list": (b"ccollections\nOrderedDict\n]R.", "cannot be called"),
    "call-of-a-parameter-with-nothing": (b"ctorch._utils\n_rebuild_parameter\n)R.", "is broken"),
    "tower-of-pairs": (ENTRIES + b"u" + text("b") + PAIRS + b"s.", "nested more than|more than .* values"),
    "tower-of-lists": (ENTRIES + b"u" + text("b") + LISTS + b"s.", "nested more than|more than .* values"),
    "wide-tower": (tower(b"]", b"](" + b"h\x00" * 200 + b"eq\x00", 4) + b".", "more than .* values"),
    "list-in-itself": (b"]q\x00h\x00a.", "nested more than"),
    "nested-deeply": (b"]" * 200 + b"a" * 199 + b".", "nested more than"),
    "attributes-of-a-list": (b"]}b.", "as if it were a dict"),
    "attributes-of-a-type": (b"ctorch\nFloatStorage\n}b.", "as if it were a dict"),
    "append-to-a-dict": (b"}K\x01a.", "as if it were a list"),
    "items-of-a-list": (b"]K\x01K\x02s.", "as if it were a dict"),
    "below-a-mark": (b"K\x01(\x85.", "takes what is not there"),
    "no-mark": (b"K\x01t.", "takes what is not there"),
    "left-on-the-stack": (b"K\x01K\x02.", "left at its end"),
    "behind-its-end": (b"}.}", "left at its end"),
    "recalls-nothing": (b"h\x05.", "recalls what"),
    "protocol-of-the-future": (b"\x80\x09}.", "protocol 9"),
    "text-beyond": (b"X\xff\xff\xff\xff.", "breaks off"),
    "text-of-exabytes": (b"\x8d" + b"\xff" * 8 + b".", "breaks off"),
    "name-without-end": (b"ctorch", "breaks off"),
    "text-of-other-bytes": (b"X\x01\x00\x00\x00\xff.", "is broken|codec"),
}


def in_file(pickled: bytes, *more: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, data in (("a/data.pkl", pickled), *more):
            file.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_description_of_tensors_has_is_refused(tmp_path, name):
    pickled, words = REFUSED[name]
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(in_file(START + pickled))
    for read in (read_records, lambda path: read_nested(path, ("model",))):
        with pytest.raises(CorruptCheckpointError, match=words) as error:
            read(path)
        assert len(str(error.value)) < 1000 and str(path) in str(error.value)


def test_instructions_without_end(monkeypatch):
    """The limit itself is tried in the child processes below, where no types are checked."""
    monkeypatch.setattr(records, "_MOST_INSTRUCTIONS", 100)
    with pytest.raises(Refused, match="more than 100 instructions"):
        read_description(START + b"N" * 100)
    assert read_description(START + b"N.") is None


def test_whatever_is_made_is_plain_data():
    """No instruction makes an instance of a class that has methods of its own."""
    found = read_description(START + b"ccollections\nOrderedDict\n)R}" + text("_metadata") + b"K\x01sb.")
    assert found == {} and type(found) is dict


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_is_described_is_what_was_written(protocol):
    value = {
        "a": [1, -2, 1 << 40, 2.5, None, True, False, "é€😀", ("x", (), ("y", "z"))], "b": {}, "c": OrderedDict(a=1),
        "d": {3: [0] * 2000}, "long": "x" * 300, "many": {str(i): i for i in range(3000)},
    }  # fmt: skip
    assert read_description(pickle.dumps(value, protocol)) == value


def test_a_shared_value_is_no_tower():
    """Groups of an optimizer share their betas."""
    betas = (0.9, 0.95)
    value = {"groups": [{"betas": betas, "params": [i]} for i in range(1000)]}
    assert read_description(pickle.dumps(value, 2)) == value


def test_the_optimizer_beside_a_model_has_numbers_as_keys(tmp_path):
    module = torch.nn.Linear(3, 5)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(3)).sum().backward()
    optimizer.step()
    torch.save({"model": module.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "c.pt")
    weights, beside = read_nested(tmp_path / "c.pt", ("model",))
    assert set(weights) == {"weight", "bias"} and set(beside["optimizer"]["state"]) == {0, 1}


DATA = st.recursive(
    st.integers() | st.text(max_size=3) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=30,
)


@given(DATA)
def test_data_passes(value):
    refuse_what_never_ends(value)


PIECES = [bytes([code]) for code in _STEPS] + [
    b"q\x00", b"h\x00", b"q\x01", b"h\x01", b"K\x01", b"K\x02", text("a"), text("b"), b"\x85", b"\x86", b"(", b"}",
    b"]", b")", b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n",
    b"ctorch._utils\n_rebuild_parameter\n", text("storage"), b"N", b"\x88", b"\x8a\x09" + b"\x7f" * 9,
    b"R", b"Q", b"t",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=60))
def test_no_order_of_instructions_does_more_than_an_error(pieces):
    """The same instructions in any order: what comes out is plain data of few types, or a fact."""
    try:
        found = read_description(START + b"".join(pieces) + b".")
    except (Refused, UnicodeDecodeError):
        return
    refuse_what_never_ends(found)
    assert len(repr(found)) < 1 << 20


COSTLY = {
    "dicts": b"}" * 1_040_000,
    "dicts-of-one": b"K\x01q\x00" + b"}h\x00Ns" * 262_000,
    "ordered-dicts": b"ccollections\nOrderedDict\nq\x00)q\x01" + b"h\x00h\x01R" * 349_000,
    "marks": b"(" * 1_040_000,
    "remembered": b"".join(b"r" + struct.pack("<I", i * 4097 % (1 << 32)) for i in range(1_040_000))
    .replace(b"r", b"Nr", 1),
    "one-wide-text": b"X" + struct.pack("<I", 15 << 20) + "😀".encode() + b"a" * ((15 << 20) - 4) + b".",
    "wide-texts": (text("😀" + "a" * 200).replace(b"X\xc9", b"X\xcc")) * 70_000,
    "large-numbers": b"\x8a\xff" + b"\x7f" * 255,
    "dicts-of-text": b"".join(b"}\x8c\x05" + f"{i:05}".encode() + b"Ns" for i in range(100_000)),
}  # fmt: skip
CHILD = """
import os, resource, sys
from pathlib import Path
from transformer_lens.loading.checkpoint import records
from transformer_lens.loading.checkpoint.bin_file import read_records
from transformer_lens.loading.errors import CorruptCheckpointError
for name in sys.argv[1:]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = os.fork()
    if child == 0:
        try:
            read_records(Path(name))
        except CorruptCheckpointError:
            os._exit(0)
        os._exit(7)
    _, status, used = os.wait4(child, 0)
    print(name, status, max(used.ru_maxrss - before, 0) >> 10)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is counted in other units elsewhere")
def test_no_file_takes_more_than_two_hundred_mebibytes(tmp_path):
    files = {name: in_file(START + pickled) for name, pickled in COSTLY.items()}
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as file:
        for place in range(150_000):
            file.writestr(zipfile.ZipInfo(f"a/{place}"), b"")
    files["entries"] = many.getvalue()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *files], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True
    )
    took = {name: (status, int(mebibytes)) for name, status, mebibytes in map(str.split, done.stdout.splitlines())}
    assert set(took) == set(files)
    assert all(status == "0" and mebibytes < 200 for status, mebibytes in took.values()), took
