"""The plan of a load: its arithmetic on promises made by hand, and on tiny checkpoints."""

import dataclasses
import inspect
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from tests.fallback import may_fall_back
from tests.tiny_models import VARIANTS, make_model, save
from transformer_lens import HookedTransformer
from transformer_lens.loading import InsufficientMemoryError, LoadPlan, Request, plan_load, prepare
from transformer_lens.loading.loaders import can_assign
from transformer_lens.loading.memory import available
from transformer_lens.loading.memory.arithmetic import cost_of, peak_of
from transformer_lens.loading.memory.sizes import memory_of, memory_of_words, nbytes_of
from transformer_lens.loading.weights import Held, Joint, LazyTensor, Origin, Weights

ROOT = Path(__file__).parents[3]
CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
MODE = "assign" if can_assign() else "copy"  # what "auto" means here
OFF = dict.fromkeys(
    ["fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases"],
    False,
)


def promise(nbytes: int, held: Held = Held.FRESH, device: torch.device = CPU, **more) -> LazyTensor:
    """Promises so many bytes; nobody may ask for them."""
    assert nbytes % 4 == 0
    make = lambda: pytest.fail("a number was read")
    return LazyTensor((nbytes // 4,), torch.float32, held, Origin("x"), make, device=device, **more)


def together(joint: Joint, *sources: LazyTensor) -> dict[str, LazyTensor]:
    """Promises results that one computation makes."""
    return {
        "abc"[place]: promise(nbytes, joint=(joint, place), sources=sources)
        for place, nbytes in enumerate(joint.nbytes)
    }


MAPPED = promise(100, Held.MAPPED)
ARITHMETIC = {
    "nothing": ({}, 0, 0),
    "mapped": ({"a": MAPPED}, 0, 100),
    "borrowed": ({"a": promise(100, Held.BORROWED)}, 0, 100),
    "fresh": ({"a": promise(100), "b": promise(8)}, 108, 108),
    "computed of what is mapped": ({"a": promise(200, sources=(MAPPED,))}, 200, 200),
    "computed of what is read": ({"a": promise(200, sources=(promise(100),))}, 300, 300),
    "kept before counts": ({"a": promise(40), "b": promise(200, sources=(promise(100),))}, 340, 340),
    "gone before it is kept": ({"b": promise(200, sources=(promise(100),)), "a": promise(40)}, 300, 300),
    "a part of a whole": ({"a": promise(40, whole=120)}, 160, 160),
    "three parts of a whole": ({name: promise(40, whole=120) for name in "abc"}, 240, 240),
    "working memory": ({"a": promise(40, working=16), "b": promise(8)}, 56, 56),
    # Both results wait, and the first is copied from there; then the other waits beside the first.
    "computed together": (together(Joint((40, 40), 8, 8), MAPPED), 120, 120),
    "what waits is beside what comes between": (
        {"a": together(Joint((40, 60), 8, 8))["a"], "x": promise(200)},
        300,
        300,
    ),
    "computing together takes most": (together(Joint((40, 40), 200, 8), promise(20)), 220, 220),
    "computing together takes most when its sources are gone": (
        together(Joint((40, 40), 8, 200), promise(20)),
        200,
        200,
    ),
    "computed together layer by layer": (
        {
            **together(Joint((40, 40), 8, 8)),
            **{f"{name} of layer 1": one for name, one in together(Joint((40, 40), 8, 8)).items()},
        },
        200,
        200,
    ),
    "sources of sources": ({"a": promise(8, sources=(promise(20, sources=(promise(60),)), promise(4)))}, 80, 80),
}


@pytest.mark.parametrize("name", ARITHMETIC)
def test_the_peak(name):
    promises, assign, copy = ARITHMETIC[name]
    assert peak_of(Weights(promises), "assign") == assign
    assert peak_of(Weights(promises), "copy") == copy


def test_each_device_has_its_own():
    weights = Weights(
        {
            "a": promise(400, device=CUDA, sources=(MAPPED,)),
            "b": promise(400, device=CUDA, sources=(promise(60),), working=12),
            "c": promise(20),
        }
    )
    main, gpu = cost_of(weights, "assign")
    assert (main.device, main.allocated, main.peak) == ("cpu", 20, 72)
    assert (gpu.device, gpu.allocated, gpu.peak) == ("cuda:0", 800, 800)
    assert main.place == "main memory" and gpu.available is None and gpu.fits


def test_what_a_live_model_ties_is_counted_once():
    weights = Weights({"a": promise(100, Held.BORROWED), "b": promise(100, Held.BORROWED)})
    assert cost_of(weights, "assign", tied={"b"})[0].borrowed == 100
    assert cost_of(weights, "copy", tied={"b"})[0].allocated == 200


def test_views_know_their_whole():
    read = promise(120)
    part = read.view(lambda tensor: tensor[:10], (10,), "d").view(lambda tensor: tensor[:5], (5,), "d")
    assert (part.nbytes, part.allocates) == (20, 120)
    mapped = MAPPED.view(lambda tensor: tensor[:5], (5,), "d")
    assert (mapped.allocates, peak_of(Weights({"a": mapped}), "copy")) == (0, 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(VARIANTS["gpt2"], tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    return save(VARIANTS["llama-gqa"], tmp_path_factory.mktemp("llama"), torch.bfloat16)


def test_a_fused_matrix_is_read_whole_for_each_of_its_parts(folder):
    """Queries, keys and values of GPT-2 lie in one tensor: under io="read" each costs the three for a moment."""
    read = HookedTransformer.plan_load(folder, io="read", device="cpu", first_n_layers=1, **OFF)
    prepared = prepare(Request(model_name=str(folder), io="read", device="cpu"))
    query = prepared.converted.weights["blocks.0.attn.W_Q"]
    assert query.allocates == 3 * query.nbytes
    assert read.taken.main.peak >= read.taken.main.allocated


@pytest.mark.parametrize("mode", ["assign", "copy"])
@pytest.mark.parametrize("processed", [True, False], ids=["processed", "as-it-is"])
def test_the_plan_is_what_the_report_then_says(half, mode, processed):
    arguments = {"load_mode": mode, "device": "cpu", **({} if processed else OFF)}
    plan = HookedTransformer.plan_load(half, dtype="auto", **arguments)
    with may_fall_back(mode):
        report = HookedTransformer.from_pretrained(half, dtype="auto", **arguments).load_report
    cost = plan.taken.main
    done = mode if can_assign() else "copy"
    assert plan.report.load_mode == report.load_mode == done
    assert (cost.mapped, cost.borrowed, cost.allocated) == (
        report.bytes_mapped,
        report.bytes_borrowed,
        report.bytes_allocated,
    )
    assert dataclasses.replace(plan.report, seconds={}) == dataclasses.replace(report, seconds={})
    assert (done == "copy") == (cost.mapped == 0)


def test_a_live_model_is_borrowed():
    model = make_model(VARIANTS["gpt2"])
    plan = HookedTransformer.plan_load(hf_model=model, device="cpu", **OFF)
    held = sum(parameter.numel() * 4 for parameter in model.parameters())
    assert plan.taken.main.borrowed == (held if can_assign() else 0)
    assert plan.taken.main.mapped == 0
    assert plan.modes["copy"].main.borrowed == 0


def test_nothing_is_read_and_nothing_is_loaded(half, monkeypatch):
    from transformer_lens.loading.checkpoint.regions import Region

    for name in ("map", "read"):
        monkeypatch.setattr(Region, name, lambda self: pytest.fail("a tensor was made"))
    plan = HookedTransformer.plan_load(half, device="cpu")
    assert plan.fits and plan.modes.keys() == ({"assign", "copy"} if can_assign() else {"copy"})


def test_options_are_planned_in_full(half):
    """Each option's figures are those that the plan of its own arguments has."""
    plan = HookedTransformer.plan_load(half, load_mode="copy", device="cpu")
    assert {*(["load_mode"] if can_assign() else ()), "dtype", "fold_ln"} <= {
        name for option in plan.options for name in option.arguments
    }
    for option in plan.options:
        again = HookedTransformer.plan_load(half, **{"load_mode": "copy", "device": "cpu", **option.arguments})
        assert [(cost.peak, cost.mapped, cost.allocated) for cost in again.taken.devices] == [
            (cost.peak, cost.mapped, cost.allocated) for cost in option.plan.devices
        ]
        assert option.saves == plan.taken.peak - again.taken.peak > 0
    peaks = [option.plan.peak for option in plan.options]
    assert peaks == sorted(peaks)


def test_nothing_saves_where_nothing_is_spent(half):
    assert HookedTransformer.plan_load(half, dtype="auto", device="cpu", **OFF).options == ()


def test_the_refusal_marks_what_would_fit(half, monkeypatch):
    plan = HookedTransformer.plan_load(half, load_mode="copy", device="cpu")
    peaks = {option.call: option.plan.peak for option in plan.options}
    enough = peaks["dtype='auto'"] if "dtype='auto'" in peaks else sorted(peaks.values())[1]
    monkeypatch.setattr(available, "available_memory", lambda: enough)
    with pytest.raises(InsufficientMemoryError) as error:
        HookedTransformer.from_pretrained(half, load_mode="copy", device="cpu")
    lines = str(error.value).splitlines()
    for call, peak in peaks.items():
        (line,) = (line for line in lines if f": {call}: " in line)
        assert line.strip().startswith("fits" if peak <= enough else "does not fit")
    assert any("fits" in line and "not" not in line for line in lines)
    assert any("does not fit:" in line for line in lines)
    model = HookedTransformer.from_pretrained(half, load_mode="copy", device="cpu", check_memory=False)
    assert model.load_report.bytes_mapped == 0


def test_it_says_everything(half, monkeypatch):
    monkeypatch.setattr(available, "available_memory", lambda: 1000)
    plan = HookedTransformer.plan_load(half, device="cpu")
    assert not plan.fits
    text, data = str(plan), json.loads(plan.to_json())
    assert data == json.loads(json.dumps(plan.as_dict(), indent=2))
    for words in ("LlamaForCausalLM", f"{MODE}:", "copy:", "1000 B can be had: DOES NOT FIT", "other ways:", "fold_ln"):
        assert words in text
    assert data["fits"] is False and data["modes"][MODE]["devices"]["cpu"]["available"] == 1000
    assert data["report"] == json.loads(plan.report.to_json())
    assert {"arguments", "saves", "fits", "devices", "mode"} == set(data["options"][0])


def test_it_takes_what_from_pretrained_takes(half):
    theirs = inspect.signature(HookedTransformer.from_pretrained).parameters
    given = {name: parameter.default for name, parameter in theirs.items() if parameter.default is not parameter.empty}
    assert isinstance(HookedTransformer.plan_load(**{**given, "model_name": half, "device": "cpu"}), LoadPlan)
    with pytest.raises(TypeError, match="does not know: nonsense"):
        HookedTransformer.plan_load(half, nonsense=1)


# -- the hub -----------------------------------------------------------------------------------------------------------


class Hub(BaseHTTPRequestHandler):
    """Serves the files of one folder as a repository, whole or in ranges, and counts bytes."""

    folder: Path
    sent: dict[str, int] = {}

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].split("/resolve/", 1)[-1].partition("/")[2]
        path = self.folder / name
        if "/bin/" in self.path and name == "pytorch_model.bin":
            path = self.folder / "config.json"
        elif "/bin/" in self.path and name != "config.json":
            path = self.folder / "nothing"
        if not path.is_file():
            return self.reply(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": "c" * 40})
        body = path.read_bytes()
        headers = {"ETag": f'"{hash(body) & 0xFFFFFFFF:x}"', "X-Repo-Commit": "c" * 40, "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range")
        if wanted is None:
            return self.reply(200, body, headers)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        piece = body[int(first) : int(last or len(body) - 1) + 1]
        headers["Content-Range"] = f"bytes {first}-{int(first) + len(piece) - 1}/{len(body)}"
        self.reply(206, piece, headers)

    do_HEAD = do_GET

    def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
            name = self.path.rpartition("/")[2]
            self.sent[name] = self.sent.get(name, 0) + len(body)

    def log_message(self, *args) -> None:
        pass


CHILD = """
import json
from transformer_lens import HookedTransformer
from transformer_lens.loading import LoadingError
from transformer_lens.loading.memory import available
out = {}
plan = HookedTransformer.plan_load("some/model", device="cpu")
out["plan"] = plan.as_dict()
there = available.available_memory
available.available_memory = lambda: 1000
try:
    HookedTransformer.from_pretrained("some/model", device="cpu")
except LoadingError as error:
    out["refused"] = str(error)
available.available_memory = there
model = HookedTransformer.from_pretrained("some/model", device="cpu")
out["report"] = model.load_report.to_dict()
out["again"] = HookedTransformer.plan_load("some/model", device="cpu").as_dict()
try:
    HookedTransformer.plan_load("some/bin", device="cpu")
except LoadingError as error:
    out["bin"] = str(error)
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def online(tmp_path_factory):
    """What a child says that has a hub on loopback, with a checkpoint of which a header is a small part."""
    home = tmp_path_factory.mktemp("hub")
    variant = VARIANTS["gpt2"]
    large = dataclasses.replace(variant, settings={**variant.settings, "vocab_size": 6000})
    folder = save(large, home / "files")
    handler = type("OneHub", (Hub,), {"folder": folder, "sent": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    return_code, out, err = _child(home, f"http://127.0.0.1:{server.server_address[1]}")
    server.shutdown()
    server.server_close()
    thread.join()
    assert return_code == 0, err
    return json.loads(out.splitlines()[-1]), handler.sent, (folder / "model.safetensors").stat().st_size


def _child(home: Path, endpoint: str):
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home / "home"), "HF_HUB_OFFLINE": "0",
                "HF_HUB_DISABLE_XET": "1", "HF_HUB_ETAG_TIMEOUT": "5", "PYTHONWARNINGS": "ignore"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, text=True, cwd=ROOT, env={**kept, **settings}
    )
    return done.returncode, done.stdout, done.stderr


def test_the_plan_of_a_name_reads_headers_where_they_are(online):
    said, sent, size = online
    assert said["plan"]["remote"] == ["model.safetensors"]
    assert said["plan"]["report"]["source"] == "hub"
    assert "nothing was read" in said["refused"]
    # The plan, the refused load and the load that was done read the header; the file itself was sent once.
    assert size < sent["model.safetensors"] <= size + 3 * 100_001
    assert said["again"]["remote"] == []
    for name in ("mapped", "allocated", "peak"):
        assert (
            said["again"]["modes"][MODE]["devices"]["cpu"][name]
            == (said["plan"]["modes"][MODE]["devices"]["cpu"][name])
        )
    assert said["report"]["bytes_allocated"] == said["plan"]["modes"][MODE]["devices"]["cpu"]["allocated"]


def test_a_bin_file_has_no_header(online):
    said, sent, _ = online
    assert "pytorch_model.bin of some/bin is not in the cache" in said["bin"]
    assert "hf download some/bin pytorch_model.bin" in said["bin"]
    assert "pytorch_model.bin" not in sent


def test_a_request_may_ask_for_nothing_to_be_fetched(folder):
    plan = plan_load(Request(model_name=str(folder), device="cpu"))
    assert plan.remote == ()


# -- machines that this one is not -------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps", "xpu"])
@pytest.mark.parametrize("n_devices", [1, 2])
def test_a_plan_for_a_device_that_is_not_here_is_a_plan(half, device, n_devices, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    plan = HookedTransformer.plan_load(half, device=device, n_devices=n_devices)
    there = [cost for cost in plan.taken.devices if cost.device != "cpu"]
    assert [torch.device(cost.device).type for cost in there] == [torch.device(device).type] * n_devices
    here = HookedTransformer.plan_load(half, device="cpu", load_mode="copy").taken.main
    assert sum(cost.allocated for cost in there) == here.allocated
    assert plan.fits and "what can be had is not known" in str(plan) and "may fit" in repr(plan)
    assert "cpu" in [option.arguments.get("device") for option in plan.options]


def test_a_load_onto_more_devices_than_there_are_is_refused(half, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for check_memory in (True, False):
        with pytest.raises(ValueError, match="n_devices is 2, but there are 1 CUDA devices"):
            HookedTransformer.from_pretrained(half, device="cpu", n_devices=2, check_memory=check_memory)


def test_a_plan_may_be_told_what_a_machine_has(half):
    taken = HookedTransformer.plan_load(half, device="cpu").taken.main
    for memory, nbytes, fits in (
        (taken.peak, taken.peak, True),
        (taken.peak - 1, taken.peak - 1, False),
        ("1KiB", 1 << 10, False),
        ({"cpu": "1 GiB"}, 1 << 30, True),
    ):
        plan = HookedTransformer.plan_load(half, device="cpu", memory=memory)
        assert (plan.taken.main.available, plan.fits) == (nbytes, fits)
        assert all(option.plan.main.available == nbytes for option in plan.options)
        assert plan.modes["copy"].main.available == nbytes
    plan = HookedTransformer.plan_load(half, device="cuda", memory={"cpu": "1GiB", "cuda": "1KiB"})
    assert not plan.fits and plan.taken.main.fits and plan.taken.devices[1].available == 1 << 10
    assert HookedTransformer.plan_load(half, device="cuda", memory={"cuda:0": "1GiB"}).fits


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("16GiB", 16 << 30), ("16G", 16 << 30), ("16gb", 16 * 10**9), ("512 MiB", 512 << 20), ("1.5GiB", 3 << 29),
        ("1TiB", 1 << 40), ("7", 7), ("7B", 7), ("2k", 2048), (12, 12), (0, 0),
    ],
)  # fmt: skip
def test_sizes(text, nbytes):
    assert nbytes_of(text) == nbytes


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1e3", "16 Gigs", "1..5GiB", "16GiB16", -5, True, "١GiB", "9" * 400])
def test_no_sizes(text):
    with pytest.raises(ValueError, match="is no size of memory"):
        nbytes_of(text)


def test_memory_of_no_device():
    with pytest.raises(ValueError, match="that is no device"):
        memory_of({"gpu": "16GiB"})
    with pytest.raises(ValueError, match="given twice"):
        memory_of_words(["16GiB", "cpu=8GiB"])
    assert memory_of_words(["16GiB", "cuda=8GiB"]) == {"cpu": "16GiB", "cuda": "8GiB"}
