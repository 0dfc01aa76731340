"""The report of a load: what it says is so, and it survives being written down."""

import dataclasses
import io
import json
import sys
from html import escape

import pytest
import torch

from tests.tiny_models import VARIANTS, make_model, save
from tests.unit.loading.laid_out import size_of
from transformer_lens import HookedTransformer
from transformer_lens.hooked_transformer.pretrained import request_of
from transformer_lens.loading import DeviceCost, Inspection, LoadPlan, ModePlan, Option, prepare
from transformer_lens.loading.inspection import Entry
from transformer_lens.loading.loaders import can_assign
from transformer_lens.loading.progress import byte_progress
from transformer_lens.loading.report import LoadReport, gib
from transformer_lens.verification import Row, Verification

FULL = LoadReport(
    label="org/name",
    source="hub",
    revision="abc123",
    architecture="GPT2LMHeadModel",
    load_mode="copy",
    requested_mode="assign",
    reason="this torch is old",
    dtype="float32",
    source_dtype="bfloat16",
    device="cuda:0",
    bytes_mapped=0,
    bytes_borrowed=1 << 10,
    bytes_allocated=3 << 30,
    bytes_per_device={"cuda:0": 1 << 30, "cuda:1": 2 << 30},
    largest_tensor=5 << 20,
    seconds={"open": 0.125, "load": 1.5},
    io="map: a local disk (ext4)",
    memory="small pages, threads: 2",
    steps=("fold_ln", "center_unembed"),
    skipped=(("center_writing_weights", "RMS norms do not take the mean away"),),
    read=("h.0.a", "h.1.a"),
    zero_filled=("blocks.0.attn.b_Q", "blocks.1.attn.b_Q"),
    tied=(("unembed.W_U", "embed.W_E"),),
    dropped={"h.0.bias": "a buffer"},
    savings=("2.5 GiB because float32: dtype='auto' would map the file",),
    processed_cache="kept",
    processed_cache_file="/cache/key.safetensors",
    processed_cache_reason="made again: it was stale",
    versions={"torch": "2.1.2"},
    quantization="nf4, products in bfloat16",
    packed=("blocks.0.attn.W_Q",),
    bytes_packed=1 << 21,
    dequantized={"blocks.0.attn.W_K": "its rows end inside blocks"},
    links={"config.json": "/store/1"},
    adapters=("org/adapter",),
    merged={"h.0.a": "LoRA of rank 4, scale 1.5, of org/adapter", "h.1.a": "LoRA of rank 4, scale 1.5, of org/adapter"},
)
BARE = dataclasses.replace(
    FULL, revision=None, bytes_per_device={"cpu": 1}, io="", memory="", steps=(), skipped=(), read=(),
    zero_filled=(), tied=(), dropped={}, savings=(), links={},
    quantization="", packed=(), bytes_packed=0, dequantized={}, adapters=(), merged={},
    processed_cache="", processed_cache_file="", processed_cache_reason="",
)  # fmt: skip


@pytest.mark.parametrize("report", [FULL, BARE], ids=["full", "bare"])
@pytest.mark.parametrize("indent", [None, 2])
def test_json_comes_back(report, indent):
    text = report.to_json(indent)
    assert LoadReport.from_json(text) == report
    assert LoadReport.from_json(text).to_json(indent) == text
    assert set(json.loads(text)) == {field.name for field in dataclasses.fields(LoadReport)}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(LoadReport)])
def test_reports_of_other_loads_differ(name):
    values = json.loads(FULL.to_json())
    values[name] = type(values[name])() if values[name] else 1
    assert LoadReport.from_json(json.dumps(values)) != FULL


STRANGE = "<script>alert(1)</script>\n" + "a/very/long/path" * 100


def shown():
    """Returns everything that a notebook may end a cell with, with labels that are anybody's words."""
    entries = tuple(Entry(f"h.{index}.{STRANGE}", "float32", (3, 4), 48) for index in range(500))
    rows = tuple(Row(f"blocks.{index}", 1e-6, index != 7) for index in range(500))
    report = dataclasses.replace(FULL, label=STRANGE, read=tuple(f"h.{index}.a" for index in range(5000)))
    cost = DeviceCost("cuda:0", 0, 0, 1 << 30, 1 << 30, None)
    mode = ModePlan("copy", (cost, *(dataclasses.replace(cost, device=f"cuda:{index}") for index in range(64))))
    options = tuple(Option({"dtype": "auto"}, mode, 1) for _ in range(100))
    return [
        report,
        LoadPlan(report, {"copy": mode}, options, tuple(f"{STRANGE}-{index}" for index in range(100))),
        Verification(STRANGE, rows, (STRANGE,)),
        Verification(STRANGE, ()),
        Inspection(STRANGE, "folder", "", "", "", STRANGE, entries),
    ]


@pytest.mark.parametrize("place", range(5))
def test_a_notebook_shows_a_line_that_unfolds(place):
    one = shown()[place]
    line, html, text = repr(one), one._repr_html_(), str(one)
    assert len(line.splitlines()) == 1 and len(line) < 400
    assert type(one).__name__ in line and "print it" in line
    assert "<script>" not in html and html.count("<pre>") == 1 and "&lt;script&gt;" in html
    assert f"<pre>{escape(text)}</pre>" in html and escape(line) in html
    assert "<script>" in text and len(text.splitlines()) > 1


def test_no_repr_is_a_page_of_its_own(tmp_path):
    folder = save(VARIANTS["llama-gqa"], tmp_path)
    prepared = prepare(request_of(folder, device="cpu", token="hf_secret"))
    for one in (prepared, prepared.report(), prepared.request):
        assert len(repr(one)) < 1500 and "hf_secret" not in repr(one), type(one)


def test_it_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.label = "other"


def test_printed():
    lines = str(FULL).splitlines()
    assert lines[0] == "org/name (GPT2LMHeadModel, hub, revision abc123)"
    text = str(FULL)
    for part in (
        "copy: this torch is old", "float32 on cuda:0, checkpoint in bfloat16", "mapped 0 B", "borrowed 1.0 KiB",
        "allocated 3.0 GiB", "largest tensor 5.0 MiB", "open 0.12 s, load 1.50 s", "files: map: a local disk (ext4)",
        "cuda:0 1.0 GiB, cuda:1 2.0 GiB", "done: fold_ln, center_unembed",
        "left out: center_writing_weights: RMS norms",
        "tied: unembed.W_U is embed.W_E", "zero-filled: blocks.{0…1}.attn.b_Q", "not read: h.0.bias",
        "link: config.json is /store/1", "packed: nf4, products in bfloat16: 2.0 MiB in 1 matrices",
        "dequantized: blocks.0.attn.W_K: its rows end inside blocks",
        "merged: h.{0…1}.a: LoRA of rank 4, scale 1.5, of org/adapter",
        "processed weights kept: /cache/key.safetensors, made again: it was stale",
        "could save: 2.5 GiB because float32: dtype='auto' would map the file",
    ):  # fmt: skip
        assert part in text
    assert len(str(BARE).splitlines()) == 5 and "None" not in str(BARE)


@pytest.mark.parametrize(
    ("nbytes", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 20, "1.0 MiB"), (5 << 30, "5.0 GiB")]
)
def test_bytes_for_people(nbytes, text):
    assert gib(nbytes) == text


@pytest.mark.parametrize("load_mode", ["assign", "copy"])
@pytest.mark.parametrize("processed", [True, False])
def test_report_of_a_load(load_mode, processed):
    if load_mode == "assign" and not can_assign():
        pytest.skip("this torch cannot assign")
    hf_model = make_model(VARIANTS["gpt2"])
    load = HookedTransformer.from_pretrained if processed else HookedTransformer.from_pretrained_no_processing
    model = load(hf_model=hf_model, load_mode=load_mode, device="cpu")
    report = model.load_report
    # What a tied model's two names share is counted once.
    nbytes = sum({parameter.data_ptr(): size_of(parameter) for parameter in model.parameters()}.values())
    assert report.bytes_mapped + report.bytes_borrowed + report.bytes_allocated == nbytes
    assert report.bytes_per_device == {"cpu": nbytes}
    theirs = {tensor.untyped_storage().data_ptr() for tensor in hf_model.state_dict().values()}
    shared = {p.data_ptr(): size_of(p) for p in model.parameters() if p.untyped_storage().data_ptr() in theirs}
    assert report.bytes_borrowed == sum(shared.values())
    assert (report.bytes_borrowed > 0) == (load_mode == "assign" and not processed)
    assert report.largest_tensor == max(size_of(parameter) for parameter in model.parameters())
    assert report.load_mode == report.requested_mode == load_mode
    assert report.steps == (
        ("fold_ln", "fold_value_biases", "center_writing_weights", "center_unembed") if processed else ()
    )
    assert ("unembed.W_U", "embed.W_E") in report.tied
    assert set(report.read) | set(report.dropped) == set(hf_model.state_dict())
    assert report.versions["torch"] == str(torch.__version__) and "transformers" in report.versions
    assert LoadReport.from_json(report.to_json()) == report


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("terminal", "variable", "shown", "seconds", "expected"),
    [
        (True, None, None, 2.0, True),
        (True, None, None, 0.0, False),
        (True, "0", None, 2.0, False),
        (True, "1", None, 2.0, True),
        (False, None, None, 2.0, False),
        (False, None, True, 2.0, True),
        (True, "0", True, 2.0, True),
        (True, None, False, 2.0, False),
        (False, None, True, 0.0, False),
    ],
)
def test_progress_is_seen_where_it_should_be(monkeypatch, terminal, variable, shown, seconds, expected):
    stderr = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.delenv("TRANSFORMERLENS_PROGRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("TRANSFORMERLENS_PROGRESS", variable)
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    with byte_progress(2 << 20, "org/name", shown) as advance:
        for _ in range(2):
            now[0] += seconds / 2
            advance(1 << 20)
    assert ("org/name" in stderr.getvalue()) == expected
