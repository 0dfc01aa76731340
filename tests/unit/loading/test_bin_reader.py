"""``.bin`` files: what torch.save writes is read bit by bit; code, lies and leftovers are refused, and nothing runs."""

import io
import os
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transformer_lens.loading.checkpoint import open_checkpoint
from transformer_lens.loading.checkpoint.bin_file import read_records
from transformer_lens.loading.errors import CorruptCheckpointError, LoadingError
from transformer_lens.loading.sources import FolderSource
from transformer_lens.loading.weights import Held

# -- what is whole ---------------------------------------------------------------------------------------------------


def saved() -> dict[str, torch.Tensor]:
    base = torch.randn(7, 5)
    shared = torch.randn(11)
    return {
        "contiguous": base,
        "transposed": torch.randn(4, 6).t(),
        "slice": base[2:, 1:4],
        "every-other": torch.randn(10)[::2],
        "broadcast-axis": torch.randn(3, 1),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "shared": shared,
        "shared-again": shared,
        **{
            str(dtype): torch.randint(0, 2, (3, 4)).to(dtype)
            for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.int16)
        },
        "int8": torch.tensor([-3, 4], dtype=torch.int8),
        "uint8": torch.tensor([3, 4], dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("mode", ["map", "read"])
def test_what_torch_writes_is_read_bit_by_bit(tmp_path, protocol, mode):
    tensors = saved()
    torch.save(tensors, tmp_path / "pytorch_model.bin", pickle_protocol=protocol)
    checkpoint = open_checkpoint(FolderSource(tmp_path, "x"), {}, lambda key: False, mode)
    assert list(checkpoint.weights) == list(tensors)
    for name, promise in checkpoint.weights.items():
        made = promise.make()
        assert promise.held is (Held.MAPPED if mode == "map" else Held.FRESH), name
        assert made.dtype == promise.dtype == tensors[name].dtype and tuple(made.shape) == promise.shape, name
        assert made.stride() == tensors[name].stride() and torch.equal(made, tensors[name]), name


def test_a_state_dict_of_parameters_with_metadata(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.LayerNorm(5))
    torch.save(module.state_dict(), tmp_path / "state.bin")
    torch.save(OrderedDict(module.named_parameters()), tmp_path / "parameters.bin")
    for name in ("state.bin", "parameters.bin"):
        records = read_records(tmp_path / name)
        assert {key: promise.shape for key, promise in records.items()} == {
            key: tuple(value.shape) for key, value in module.state_dict().items()
        }
        assert all(torch.equal(records[key].make(), value) for key, value in module.state_dict().items())


def test_names_of_one_storage_do_not_share_memory_and_leave_the_file(tmp_path):
    tied = torch.randn(40, 30)
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": tied, "b": tied}, path)
    before = path.read_bytes()
    records = read_records(path)
    a, b = records["a"].make(), records["b"].make()
    a.zero_()
    assert torch.equal(b, tied) and path.read_bytes() == before


def test_sharded(tmp_path):
    torch.save({"h.0.w": torch.ones(3)}, tmp_path / "one.bin")
    torch.save({"h.1.w": torch.zeros(4)}, tmp_path / "two.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text('{"weight_map": {"h.0.w": "one.bin", "h.1.w": "two.bin"}}')
    weights = open_checkpoint(FolderSource(tmp_path, "x"), {}, lambda key: False).weights
    assert torch.equal(weights["h.0.w"].make(), torch.ones(3)) and weights["h.1.w"].shape == (4,)


# -- what is refused -------------------------------------------------------------------------------------------------


def archive(*entries: tuple[str, bytes], compression=zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as file:
        for name, data in entries:
            file.writestr(name, data)
    return out.getvalue()


def torch_file(value, **options) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


def with_pickle(text: bytes, storage: bytes = bytes(24)) -> bytes:
    return archive(("archive/data.pkl", text), ("archive/data/0", storage))


class _Storage:
    """Pickles as the reference to a storage that it says it is."""

    def __init__(self, kind: str, key, numel):
        self.kind, self.key, self.numel = kind, key, numel


class _Describe(pickle._Pickler):
    """Writes what torch.save would write for tensors that do not exist, or cannot."""

    def persistent_id(self, value):
        if isinstance(value, _Storage):
            return ("storage", getattr(torch, value.kind), value.key, "cpu", value.numel)
        return None


class _Call:
    """Pickles as a call of a name."""

    def __init__(self, function, *arguments):
        self.pair = (function, arguments)

    def __reduce__(self):
        return self.pair


def described(value, protocol: int = 2) -> bytes:
    out = io.BytesIO()
    _Describe(out, protocol).dump(value)
    return out.getvalue()


def tensor(size=(3, 2), stride=(2, 1), offset=0, numel=6, key="0", kind="FloatStorage", metadata=()) -> _Call:
    hooks = OrderedDict()
    return _Call(
        torch._utils._rebuild_tensor_v2, _Storage(kind, key, numel), offset, size, stride, False, hooks, *metadata
    )


def lying(**numbers) -> bytes:
    return with_pickle(described({"w": tensor(**numbers)}))


def legacy_tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        file.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    return out.getvalue()


def script() -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        # Newer releases of torch say that the form is old.
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(3, 2)), out)
    return out.getvalue()


def twice() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("archive/data.pkl", b"first")
        with pytest.warns(UserWarning):
            file.writestr("archive/data.pkl", described({}))
    return out.getvalue()


def with_bytes(data: bytes, old: bytes, new: bytes, which: int = 0) -> bytes:
    """Replaces the first or the last occurrence."""
    at = data.find(old) if which == 0 else data.rfind(old)
    assert at >= 0
    return data[:at] + new + data[at + len(old) :]


def overlapping() -> bytes:
    """Two entries of which the second begins inside the first."""
    inner = archive(("archive/data/1", b"inner"))
    data = archive(("archive/data.pkl", described({})), ("archive/data/0", inner), ("archive/data/1", b"inner"))
    inside = data.find(inner)
    directory = data.rfind(b"PK\x01\x02")
    return data[: directory + 42] + struct.pack("<I", inside) + data[directory + 46 :]


def encrypted() -> bytes:
    data = bytearray(with_pickle(described({})))
    data[data.find(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


OK = torch_file({"w": torch.ones(30, 20)})
EXTENSION, INSTANCE, BYTEARRAY8 = b"\x82\x01", b"(ios\nsystem\n", b"\x96" + struct.pack("<Q", 3 << 30)

BROKEN = {
    "empty": (lambda: b"", "no zip archive"),
    "html": (lambda: b"<html>not found</html>", "no zip archive"),
    "lfs-pointer": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 77\n",
        "Git LFS pointer of .* of 77 bytes",
    ),
    "legacy-pickle": (
        lambda: torch_file({"w": torch.ones(3)}, _use_new_zipfile_serialization=False),
        r"before 1.6.*python -c .*torch.load\('pytorch_model.bin', weights_only=True\)",
    ),
    "legacy-tar": (legacy_tar, "before 1.6"),
    "torchscript": (script, "TorchScript program.*not run"),
    "half": (lambda: OK[: len(OK) // 2], "no whole zip archive.*a download that stopped.*Fetch it again"),
    "without-its-end": (lambda: OK[:-10], "no whole zip archive"),
    "without-its-start": (lambda: OK[100:], "no zip archive"),
    "compressed": (
        lambda: archive(("archive/data.pkl", bytes(5000)), compression=zipfile.ZIP_DEFLATED),
        "is compressed",
    ),
    "entry-twice": (twice, "'archive/data.pkl' twice"),
    "encrypted": (encrypted, "encrypted"),
    "overlapping-entries": (overlapping, "'archive/data/1' overlaps 'archive/data/0'"),
    "two-folders": (lambda: archive(("a/data.pkl", b""), ("b/data.pkl", b"")), "not one folder"),
    "no-entries": (lambda: archive(), "no zip archive"),
    "no-pickle": (lambda: archive(("archive/data/0", b"")), "no data.pkl"),
    "other-name-at-its-bytes": (
        lambda: with_bytes(with_pickle(described({})), b"archive/data/0", b"archive/data/9"),
        "another name where its bytes are",
    ),
    "crc-of-the-pickle": (
        lambda: with_bytes(with_pickle(described({"w": tensor()})), b"FloatStorage", b"HalfStorag\n0"),
        "cannot be read",
    ),
    "big-endian": (
        lambda: archive(("archive/data.pkl", described({})), ("archive/byteorder", b"big")),
        "not little-endian",
    ),
    "empty-pickle": (lambda: with_pickle(b""), "data.pkl is broken"),
    "pickle-breaks-off": (lambda: with_pickle(described({"w": tensor()})[:-3]), "data.pkl is broken"),
    "stack-underflow": (lambda: with_pickle(b"\x80\x02s."), "data.pkl is broken"),
    "memo-of-nothing": (lambda: with_pickle(b"\x80\x02h\x07."), "data.pkl is broken"),
    "list": (lambda: with_pickle(described([1, 2])), "holds a list, not a dict"),
    "number-for-a-tensor": (lambda: with_pickle(described({"epoch": 3})), "'epoch' is a int, not a tensor"),
    "dict-in-dict": (lambda: with_pickle(described({"model": {"w": tensor()}})), "'model' is a dict"),
    "key-is-a-number": (lambda: with_pickle(described({7: tensor()})), "'7' is a Record"),
    "items-shadowed": (
        lambda: with_pickle(
            b"\x80\x02ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsctorch\nFloatStorage\nsb"
            b"X\x01\x00\x00\x00wK\x01s."
        ),
        "'w' is a int, not a tensor",
    ),
    # -- code
    "torch.load": (lambda: with_pickle(b"\x80\x02ctorch\nload\n."), "torch.load, which is not data"),
    "dotted-name": (
        lambda: with_pickle(b"\x80\x04\x8c\x0ctorch._utils\x8c\x1e_rebuild_tensor_v2.__globals__\x93."),
        "__globals__, which is not data",
    ),
    "load-from-bytes": (
        lambda: with_pickle(b"\x80\x02ctorch.storage\n_load_from_bytes\nC\x01\x00\x85R."),
        "_load_from_bytes",
    ),
    "instance-opcode": (lambda: with_pickle(b"\x80\x02" + INSTANCE + b"."), "instruction that no description"),
    "extension-opcode": (lambda: with_pickle(b"\x80\x02" + EXTENSION + b"."), "instruction that no description"),
    "new-object-opcode": (
        lambda: with_pickle(b"\x80\x02ccollections\nOrderedDict\n)\x81."),
        "instruction that no description",
    ),
    "three-gibibytes-from-nine-bytes": (lambda: with_pickle(b"\x80\x05" + BYTEARRAY8 + b"."), "instruction that no"),
    "attribute-of-a-function": (
        lambda: with_pickle(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(N}X\x0c\x00\x00\x00__defaults__)stb."),
        "data.pkl is broken",
    ),
    "call-with-too-little": (lambda: with_pickle(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R."), "is broken"),
    "other-reference": (lambda: with_pickle(b"\x80\x02K\x07Q."), "something else than a storage"),
    "reference-to-a-module": (
        lambda: with_pickle(b"\x80\x02(X\x06\x00\x00\x00moduleK\x01K\x01K\x01K\x01tQ."),
        "something else than a storage",
    ),
    # -- numbers that lie
    "storage-smaller-than-it-says": (lambda: lying(numel=7), "storage of 7 elements .28 bytes.*holds 24 bytes"),
    "storage-of-another-dtype": (lambda: lying(kind="DoubleStorage"), "48 bytes.*holds 24 bytes"),
    "storage-not-there": (lambda: lying(key="5"), "a storage that the archive does not hold"),
    "storage-elsewhere": (lambda: lying(key="../data.pkl"), "a storage that the archive does not hold"),
    "storage-key-is-a-number": (lambda: lying(key=0), "without name or size"),
    "size-beyond-storage": (lambda: lying(size=(4, 2)), "reaches 8 elements into a storage of 6"),
    "offset-beyond-storage": (lambda: lying(offset=1), "reaches 7 elements into a storage of 6"),
    "stride-beyond-storage": (lambda: lying(stride=(200, 1)), "reaches 402 elements"),
    "negative-offset": (lambda: lying(offset=-1), "numbers that make no sense"),
    "negative-size": (lambda: lying(size=(-3, -2)), "numbers that make no sense"),
    "negative-stride": (lambda: lying(stride=(-2, 1)), "numbers that make no sense"),
    "fractional-size": (lambda: lying(size=(3.0, 2)), "numbers that make no sense"),
    "boolean-size": (lambda: lying(size=(True, 2)), "numbers that make no sense"),
    "size-without-stride": (lambda: lying(size=(3, 2, 1)), "numbers that make no sense"),
    "size-is-text": (lambda: lying(size="32"), "no tuple"),
    "too-many-axes": (lambda: lying(size=(1,) * 65, stride=(1,) * 65), "numbers that make no sense"),
    "petabytes-of-one-number": (lambda: lying(size=(1 << 40,), stride=(0,)), "overlaps itself"),
    "product-that-wraps-to-zero": (lambda: lying(size=(1 << 40, 1 << 40), stride=(0, 0)), "overlaps itself"),
    "overlaps-itself": (lambda: lying(size=(4, 3), stride=(1, 1)), "overlaps itself"),
    "negated": (lambda: lying(metadata=({"neg": True},)), "conjugated or negated"),
}  # fmt: skip


CODE = {
    "os.system": lambda mark: described({"w": _Call(os.system, f"touch {mark}")}),
    "eval": lambda mark: described({"w": _Call(eval, f"open({mark!r}, 'w')")}),
    "exec-protocol-5": lambda mark: described({"w": _Call(exec, f"open({mark!r}, 'w')")}, 5),
    "open": lambda mark: described({"w": _Call(open, mark, "w")}),
    "getattr": lambda mark: described({"w": _Call(getattr, OrderedDict, "fromkeys")}),
    "in-a-storage": lambda mark: described({"w": _Call(torch._utils._rebuild_parameter, _Call(open, mark, "w"), 0, 0)}),
}


@pytest.mark.parametrize("name", CODE)
def test_code_is_refused_and_does_not_run(tmp_path, name):
    mark = tmp_path / "mark"
    data = with_pickle(CODE[name](str(mark)))
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(data)
    with pytest.raises(CorruptCheckpointError, match="which is not data; it was not run"):
        read_records(path)
    assert not mark.exists()


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named(tmp_path, name):
    make, words = BROKEN[name]
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(make())
    with pytest.raises(CorruptCheckpointError, match=f"(?s){words}") as error:
        read_records(path)
    assert str(path) in str(error.value)


@given(st.data())
def test_no_byte_that_changes_does_more_than_an_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "pytorch_model.bin"
    content = bytearray(torch_file({"w": torch.arange(6.0).view(2, 3), "b": torch.ones(2, 5).t()}))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        for promise in read_records(path).values():
            assert tuple(promise.make().shape) == promise.shape
    except LoadingError:
        pass


@given(st.binary(max_size=60))
def test_any_pickle_is_an_error_or_a_description(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("fuzz") / "pytorch_model.bin"
    path.write_bytes(with_pickle(b"\x80\x04" + text))
    try:
        assert read_records(path) == {}
    except LoadingError:
        pass
