"""What a model and a cache print and show, and a model as a folder of its own."""

import json
from html.parser import HTMLParser

import pytest
import safetensors.torch
import torch

from tests.unit.anatomy.kinds import KINDS
from tests.unit.small_transformers import BASE, make_model, make_tokenizer, make_tokens, randomize
from transformer_lens import HookedTransformer, HookedTransformerConfig, loading
from transformer_lens.loading.architectures.saved_model import stored_axes
from transformer_lens.loading.errors import CorruptCheckpointError, QuantizedTensorError

SAVED = ["pre", "sandwich, RMS, offset", "grouped", "experts, one shared and gated", "SoLU", "folded", "post",
         "rotary, two bases", "attention only", "ALiBi"]  # fmt: skip


def test_hook_points_are_listed_and_print_as_a_table():
    model = make_model(**KINDS["windows"])
    points = model.hook_points()
    assert list(points) == list(model.hook_dict.values()) and len(points) == len(model.hook_dict)
    lines = str(points).splitlines()
    assert lines[0].split() == ["hook", "point", "shape", "is"]
    row = next(line for line in lines if line.startswith("blocks.{0…2}.attn.hook_z"))
    assert "[batch, pos, head=6, d_head=8]" in row and "pattern · v" in row
    assert "use_attn_result" in next(line for line in lines if "hook_result" in line)
    assert len(lines) < len(model.hook_dict)


def test_a_cache_prints_names_shapes_and_bytes():
    model = make_model()
    _, cache = model.run_with_cache(make_tokens(), names_filter=lambda name: name.endswith(("hook_z", "hook_embed")))
    summary = cache.summary()
    assert summary.nbytes == sum(value.nbytes for value in cache.values()) and summary.count == 4
    first, last = str(summary).splitlines()[1:3]
    assert first.startswith("hook_embed") and str(list(cache["hook_embed"].shape)) in first
    assert last.startswith("blocks.{0…2}.attn.hook_z") and "float32" in last


def test_what_a_notebook_shows_is_whole_and_escaped():
    class Tags(HTMLParser):
        open: list = []

        def handle_starttag(self, tag, attrs):
            self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    model = make_model()
    model.cfg.model_name = "<script>x</script>"
    _, cache = model.run_with_cache(make_tokens())
    for thing in (model, cache, cache.summary(), model.hook_points()):
        shown = thing._repr_html_()
        assert "<script>" not in shown and "attn.hook_z" in shown
        Tags().feed(shown)
        assert not Tags.open


@pytest.mark.parametrize("kind", SAVED)
@torch.no_grad()
def test_a_saved_model_is_loaded_bit_for_bit(kind, tmp_path):
    model = make_model(**{**KINDS[kind], "dtype": torch.float64})
    if kind == "sandwich, RMS, offset":
        model.process_weights_()
    model.save_pretrained(tmp_path / "model", max_shard_bytes=9000 if kind == "pre" else 5 << 30)
    assert (len(list((tmp_path / "model").glob("*.safetensors"))) > 1) == (kind == "pre")
    again = HookedTransformer.from_pretrained(tmp_path / "model", device="cpu")
    assert again.cfg.normalization_type == model.cfg.normalization_type and again.load_report.steps == ()
    assert list(again.state_dict()) == list(model.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    torch.testing.assert_close(again(make_tokens()), model(make_tokens()), atol=1e-12, rtol=0)


@torch.no_grad()
def test_flags_and_dtype_that_are_named_hold_for_a_saved_model(tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path)
    folded = HookedTransformer.from_pretrained(tmp_path, fold_ln=True, dtype="float64", device="cpu")
    assert folded.load_report.steps == ("fold_ln",) and folded.W_E.dtype == torch.float64
    first = HookedTransformer.from_pretrained(tmp_path, first_n_layers=1, device="cpu")
    assert first.cfg.n_layers == 1 and first.load_report.bytes_allocated == 0
    assert HookedTransformer.plan_load(tmp_path, device="cpu").fits is not False


@torch.no_grad()
def test_tokenizer_and_report_are_saved_too(tmp_path):
    model = make_model(tokenizer=make_tokenizer())
    model.save_pretrained(tmp_path / "first")
    again = HookedTransformer.from_pretrained(tmp_path / "first", device="cpu")
    assert again.to_tokens("a b").tolist() == model.to_tokens("a b").tolist()
    again.save_pretrained(tmp_path / "second")
    report = loading.LoadReport.from_json((tmp_path / "second" / "load_report.json").read_text())
    assert report.architecture == "HookedTransformer"
    # The model is the mapping of the files that are replaced.
    before = {name: value.clone() for name, value in again.state_dict().items()}
    again.save_pretrained(tmp_path / "first")
    assert all(torch.equal(value, before[name]) for name, value in again.state_dict().items())


def test_a_folder_of_another_model_is_left_alone(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "model-00001-of-00002.safetensors").write_text("mine")
    with pytest.raises(FileExistsError, match="nothing was written"):
        make_model().save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model-00001-of-00002.safetensors"}


def test_a_save_that_fails_leaves_what_was_saved_before(monkeypatch, tmp_path):
    """Also over the folder that the model itself is mapped from."""
    make_model().save_pretrained(tmp_path, max_shard_bytes=9000)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    model = HookedTransformer.from_pretrained(tmp_path, device="cpu")
    with torch.no_grad():
        model.unembed.b_U.add_(1)
    write, written = safetensors.torch.save_file, []

    def fail_at_the_third(tensors, path, metadata):
        written.append(path)
        if len(written) == 3:
            path.write_bytes(b"half")
            raise OSError("no space is left")
        write(tensors, path, metadata)

    monkeypatch.setattr(safetensors.torch, "save_file", fail_at_the_third)
    with pytest.raises(OSError, match="no space"):
        model.save_pretrained(tmp_path, max_shard_bytes=9000)
    assert len(written) == 3
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_packed_model_is_not_saved(tmp_path):
    model = make_model()
    parameters = {**dict(model.named_parameters()), "embed.W_E": torch.zeros(3, dtype=torch.uint8)}
    with pytest.raises(QuantizedTensorError, match="dequantize=True"):
        loading.save_model(parameters, model.cfg, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("n_layers", 10**9, "n_layers"), ("n_layers", None, "n_layers"), ("act_fn", "evil", "describes no model"),
     ("trust_remote_code", True, "no field"), ("act_fn", 3, "another type"), ("attn_types", ["local"], "entries"),
     ("d_model", True, "another type"), ("window_size", [1], "another type")],
)  # fmt: skip
def test_a_config_that_describes_no_model_is_refused(field, value, said, tmp_path):
    make_model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["transformer_lens"]["config"][field] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CorruptCheckpointError, match=said):
        HookedTransformer.from_pretrained(tmp_path, device="cpu")


def test_what_is_pushed_is_what_is_saved(monkeypatch, tmp_path):
    seen = {}

    class Api:
        def __init__(self, token=None):
            seen["token"] = token

        def create_repo(self, repo, private=None, exist_ok=False):
            assert exist_ok
            return type("Url", (), {"repo_id": f"me/{repo}"})

        def upload_folder(self, *, repo_id, folder_path, revision, commit_message):
            model = HookedTransformer.from_pretrained(folder_path, device="cpu", load_mode="copy")
            seen.update(repo=repo_id, model=model, revision=revision)
            return "https://hub/commit"

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    model = make_model()
    with pytest.raises(loading.LoadingError, match="offline"):
        model.push_to_hub("mine")
    monkeypatch.setattr("transformer_lens.loading.sources.hub.is_offline", lambda: False)
    assert model.push_to_hub("mine", token="t") == "https://hub/commit"
    assert seen["repo"] == "me/mine" and seen["token"] == "t" and seen["revision"] is None
    assert torch.equal(seen["model"].W_Q, model.W_Q)


def test_matrices_lie_as_they_are_multiplied():
    assert stored_axes("blocks.3.attn._W_K", "kv_head d_model d_head") == "kv_head d_head d_model"
    assert stored_axes("embed.W_E", "d_vocab d_model") == "d_vocab d_model"
    model = randomize(HookedTransformer(HookedTransformerConfig(**BASE)))
    for leaf in ("W_Q", "W_O"):
        axes = {"W_Q": "head d_model d_head", "W_O": "head d_head d_model"}[leaf].split()
        stored = stored_axes(f"blocks.0.attn.{leaf}", " ".join(axes)).split()
        parameter = getattr(model.blocks[0].attn, leaf)
        assert parameter.permute([axes.index(axis) for axis in stored]).is_contiguous()
