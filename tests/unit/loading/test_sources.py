"""Names, folders, JSON, tokenizers: what is meant, what is read as data, what is refused."""

import json
import os
import re
from pathlib import Path

import pytest

from transformer_lens.loading import architectures
from transformer_lens.loading.errors import (
    CorruptCheckpointError,
    LoadingError,
    UnknownModelError,
    UnsupportedArchitectureError,
)
from transformer_lens.loading.sources import FolderSource, HubSource, load_tokenizer, resolve
from transformer_lens.loading.sources.json_files import read_json
from transformer_lens.loading.sources.model_names import MODEL_ALIASES, OFFICIAL_MODEL_NAMES
from transformer_lens.loading.sources.names import get_official_model_name, make_model_alias_map
from transformer_lens.loading.sources.remote_code import code_named
from transformer_lens.loading.sources.whole_files import fetch_again

# -- names -------------------------------------------------------------------------------------------------------------


def test_a_folder_is_meant_before_any_name(tmp_path, monkeypatch):
    (tmp_path / "gpt2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert isinstance(resolve("gpt2"), FolderSource)
    assert resolve(".").kind == "folder"


def test_a_subfolder_of_a_folder(tmp_path):
    (tmp_path / "last").mkdir()
    source = resolve(str(tmp_path), subfolder="last")
    assert isinstance(source, FolderSource) and source.folder == tmp_path / "last"
    with pytest.raises(UnknownModelError, match="has no folder 'first'"):
        resolve(str(tmp_path), subfolder="first")


@pytest.mark.parametrize(
    ("name", "repo"),
    [
        ("gpt2-small", "gpt2"),
        ("GPT2-Small", "gpt2"),
        ("pythia-70m", "EleutherAI/pythia-70m"),
        ("EleutherAI/pythia-70m", "EleutherAI/pythia-70m"),
        ("somebody/something-else", "somebody/something-else"),
    ],
)
def test_aliases_and_any_other_name_are_of_the_hub(name, repo):
    source = resolve(name, revision="abc", subfolder="sub", token="t", cache_dir="c", local_files_only=True)
    assert source == HubSource(repo, repo, "abc", "sub", "t", "c", True)


NO_MODEL = {
    "empty": ("", "is empty"),
    "relative": ("./missing", "looks like a path, and there is nothing there"),
    "absolute": ("/missing/model", "looks like a path"),
    "home": ("~/missing-model", "looks like a path"),
    "no-such-home": ("~nobody-of-this-name/model", "neither a path nor a name"),
    "windows": ("C:\\models\\gpt2", "looks like a path"),
    "deep": ("models/gpt2/last", "looks like a path"),
    "file-name": ("model.safetensors", "looks like a path"),
    "address": ("http://somewhere/model", "looks like a path"),
    "very-long": ("x" * 5000, "neither a path nor a name"),
    "no-hub-name": ("a model", "neither a folder nor a name that a model on the hub can have"),
    "null": ("gpt2\0", "name"),
    "not-hosted": ("llama-7b-hf", "not hosted on the hub"),
    "not-cached": ("gpt2-smal", "not in the hub's cache.*hf download.*Is it a path.*nearest names are gpt2, "),
}


@pytest.mark.parametrize("case", NO_MODEL)
def test_a_name_without_a_model(case):
    name, words = NO_MODEL[case]
    with pytest.raises(UnknownModelError, match=f"(?s){words}") as error:
        resolve(name).find("config.json")
    assert len(str(error.value)) < 800


def test_a_file_that_is_no_checkpoint(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    with pytest.raises(UnknownModelError, match="is a file. A checkpoint is a folder"):
        resolve(str(path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UnknownModelError, match=f"give '{tmp_path}'"):
        resolve(str(path))


def test_every_alias_leads_to_an_official_name():
    known = make_model_alias_map()
    assert set(known.values()) == set(OFFICIAL_MODEL_NAMES)
    assert all(get_official_model_name(alias) == name for name, aliases in MODEL_ALIASES.items() for alias in aliases)
    with pytest.raises(UnknownModelError) as error:
        get_official_model_name("pythia-71m")
    message = str(error.value).splitlines()[0]
    assert message.count(", ") == 2 and "EleutherAI/pythia-70m" in message


# -- folders -----------------------------------------------------------------------------------------------------------


def test_a_missing_file_says_what_is_there(tmp_path):
    (tmp_path / "weights.h5").write_text("")
    with pytest.raises(CorruptCheckpointError, match="(?s)no file 'config.json'.*it holds: weights.h5"):
        resolve(str(tmp_path)).file("config.json")


LINKED = ["config.json", "model.safetensors", "tokenizer.json", "model.safetensors.index.json"]


def linked_folder(tmp_path: Path, name: str) -> tuple[Path, Path]:
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.write_text("{}")
    (folder / name).symlink_to(elsewhere)
    return folder, elsewhere


@pytest.mark.parametrize("name", LINKED)
def test_a_link_in_ones_own_folder_is_followed_and_told(tmp_path, name):
    folder, elsewhere = linked_folder(tmp_path, name)
    source = resolve(str(folder))
    assert source.file(name).read_text() == "{}"
    assert source.links == {name: str(elsewhere)}


@pytest.mark.parametrize("name", LINKED)
@pytest.mark.parametrize("git", ["folder", "file"])
def test_a_link_out_of_a_clone_is_not_opened(tmp_path, name, git):
    folder, elsewhere = linked_folder(tmp_path, name)
    (folder / ".git").mkdir() if git == "folder" else (folder / ".git").write_text("gitdir: ../x")
    (folder / "sub").mkdir()
    (folder / "sub" / name).symlink_to(elsewhere)
    (folder / "sub" / "inside.json").symlink_to("../inside")
    (folder / "inside").write_text("1")
    for source in (resolve(str(folder)), resolve(str(folder), subfolder="sub")):
        with pytest.raises(CorruptCheckpointError, match="outside its repository. It was not opened"):
            source.find(name)
        assert source.links == {}
    assert resolve(str(folder), subfolder="sub").file("inside.json").read_text() == "1"


def test_a_folder_inside_ones_own_repository_is_ones_own(tmp_path):
    folder, _ = linked_folder(tmp_path, "config.json")
    (tmp_path / ".git").mkdir()
    assert resolve(str(folder)).file("config.json").read_text() == "{}"


@pytest.mark.parametrize("target", ["nowhere", "config.json"])
def test_a_link_to_nothing_says_where_it_leads(tmp_path, target):
    (tmp_path / "config.json").symlink_to(target)
    with pytest.raises(CorruptCheckpointError, match=f"is a link to .*{target}, and there is nothing"):
        resolve(str(tmp_path)).find("config.json")


def test_what_is_no_regular_file_is_not_there(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "config.json").symlink_to(tmp_path / "pipe")
    (tmp_path / "model.safetensors").symlink_to("/dev/zero")
    source = resolve(str(tmp_path))
    assert source.find("config.json") is None and source.find("model.safetensors") is None


def test_links_that_stay_and_links_of_the_hubs_cache_are_fine(tmp_path):
    snapshot = tmp_path / "models--a--b" / "snapshots" / ("0" * 40)
    blobs = tmp_path / "models--a--b" / "blobs"
    (snapshot / "sub").mkdir(parents=True)
    blobs.mkdir()
    (blobs / "cafe").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/cafe")
    (snapshot / "sub" / "config.json").symlink_to("../../../blobs/cafe")
    (snapshot / "other.json").symlink_to("config.json")
    for folder, name in ((snapshot, "config.json"), (snapshot / "sub", "config.json"), (snapshot, "other.json")):
        assert read_json(FolderSource(folder, "x").file(name)) == {}
    other = tmp_path / "models--c--d" / "snapshots" / ("1" * 40)
    other.mkdir(parents=True)
    (other / "config.json").symlink_to(blobs / "cafe")
    with pytest.raises(CorruptCheckpointError, match="outside its repository"):
        FolderSource(other, "x").find("config.json")
    loop = other / "loop.json"
    loop.symlink_to(loop)
    with pytest.raises(CorruptCheckpointError):
        FolderSource(other, "x").file("loop.json")


def test_the_command_that_fetches_again():
    cached = Path("/cache/models--EleutherAI--pythia-70m/snapshots/0123/sub/model.safetensors")
    assert "hf download EleutherAI/pythia-70m sub/model.safetensors --force-download" in fetch_again(cached)
    assert "--local-dir /models/mine" in fetch_again(Path("/models/mine/model.safetensors"))


# -- JSON --------------------------------------------------------------------------------------------------------------

BROKEN_JSON = {
    "empty": (b"", "cannot be read as a JSON object"),
    "half": (b'{"hidden_size": 7', "cannot be read.*is the download complete.*Fetch it again"),
    "html": (b"<html>", "cannot be read"),
    "not-utf-8": (b'{"a": "\xff"}', "cannot be read"),
    "utf-16": ("\ufeff{}".encode("utf-16"), "cannot be read"),
    "list": (b"[]", "holds a list"),
    "number": (b"7", "holds a int"),
    "null": (b"null", "holds a NoneType"),
    "key-twice": (b'{"vocab_size": 7, "vocab_size": 8}', "'vocab_size' stands twice"),
    "key-twice-inside": (b'{"a": {"b": 1, "b": 1}}', "'b' stands twice"),
    "key-twice-of-many": (b"{" + b",".join(b'"%d":0' % i for i in range(200_000)) + b',"7":0}', "'7' stands twice"),
    "nan": (b'{"eps": NaN}', "NaN"),
    "nested": (b'{"a":' * 100_000, "cannot be read"),
    "many-lists": (b'{"a":[' + b"[]," * (1 << 20) + b"0]}", "more than 1048576 values"),
    "lfs-pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 665\n", "pointer.*665 bytes"),
    "too-large": (b" " * ((64 << 20) + 1), "has less than"),
}


@pytest.mark.parametrize("case", BROKEN_JSON)
def test_a_broken_json_file_is_named(tmp_path, case):
    data, words = BROKEN_JSON[case]
    path = tmp_path / "config.json"
    path.write_bytes(data)
    with pytest.raises(CorruptCheckpointError, match=f"(?s){words}") as error:
        read_json(path)
    assert str(path) in str(error.value)


def test_json_that_is_fine(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"a": [1, 2.5, None, True, "é"], "limit": float("inf")}))
    assert read_json(path) == {"a": [1, 2.5, None, True, "é"], "limit": float("inf")}


# -- tokenizers --------------------------------------------------------------------------------------------------------


def tokenizer_folder(folder: Path, words: str = "<unk> a b", **config) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words.split())}, unk_token=words.split()[0])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": words.split()[0], **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_a_folder_without_a_tokenizer_has_none(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert load_tokenizer(FolderSource(tmp_path, "x")) is None


def test_a_folders_tokenizer(tmp_path):
    tokenizer = load_tokenizer(FolderSource(tokenizer_folder(tmp_path / "t"), "the folder"))
    assert tokenizer("a b a").input_ids == [1, 2, 1]
    assert tokenizer.name_or_path == "the folder"


def tokenizer_with_code(folder: Path, mark: Path, entry, **config) -> FolderSource:
    """A tokenizer whose class is in a file beside it, which leaves a mark when it is run."""
    tokenizer_folder(folder, auto_map={"AutoTokenizer": entry}, **config)
    (folder / "tokenization_x.py").write_text(
        f"from transformers import PreTrainedTokenizerFast\nopen({str(mark)!r}, 'w').close()\n"
        "class Mine(PreTrainedTokenizerFast):\n    pass\n"
    )
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    return FolderSource(folder, "x")


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        (["tokenization_x.Mine", None], "tokenization_x.py"),
        ("tokenization_x.Mine", "tokenization_x.py"),
        ([None, "some/where--tokenization_x.Mine"], "tokenization_x.py of some/where"),
        (["a.Slow", "b.c.Fast"], "a.py, b/c.py"),
    ],
)
def test_code_that_a_tokenizer_needs_is_named_and_neither_opened_nor_run(tmp_path, entry, named):
    source = tokenizer_with_code(tmp_path / "t", tmp_path / "mark", entry, tokenizer_class="Mine")
    with pytest.raises(LoadingError, match=re.escape(f"code of its own: {named} (auto_map)")) as error:
        load_tokenizer(source)
    assert "trust_remote_code=True" in str(error.value) and "tokenizer=" in str(error.value)
    (source.folder / "tokenization_x.py").unlink()
    (source.folder / "tokenization_x.py").mkdir()  # whoever opened it would fail otherwise than so
    with pytest.raises(LoadingError, match="neither opened nor"):
        load_tokenizer(source)
    assert not (tmp_path / "mark").exists()


def test_code_named_in_config_json_is_known_too(tmp_path):
    source = FolderSource(tokenizer_folder(tmp_path / "t", tokenizer_class="Mine"), "x")
    (source.folder / "config.json").write_text('{"auto_map": {"AutoTokenizer": "tokenization_y.Mine"}}')
    with pytest.raises(LoadingError, match="tokenization_y.py"):
        load_tokenizer(source)


def test_a_class_that_transformers_has_needs_no_code(tmp_path):
    source = tokenizer_with_code(tmp_path / "t", tmp_path / "mark", "tokenization_x.Mine")
    assert load_tokenizer(source)("a b a").input_ids == [1, 2, 1]
    assert not (tmp_path / "mark").exists()


def test_trusted_code_of_a_tokenizer_is_run_by_transformers(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    source = tokenizer_with_code(
        tmp_path / "t", tmp_path / "mark", [None, "tokenization_x.Mine"], tokenizer_class="Mine"
    )
    tokenizer = load_tokenizer(source, trust_remote_code=True)
    assert type(tokenizer).__name__ == "Mine" and (tmp_path / "mark").exists()


def test_trusted_code_of_the_hub_is_that_of_the_revision():
    source = resolve("some/model", revision="v1", subfolder="sub", token="secret", cache_dir="c", local_files_only=True)
    where = {"revision": "v1", "subfolder": "sub", "token": "secret", "cache_dir": "c", "local_files_only": True}
    assert source.for_transformers() == ("some/model", where)
    assert resolve("some/model").for_transformers() == ("some/model", {"revision": "main", "local_files_only": False})


@pytest.mark.parametrize("auto_map", [None, 3, "x", [], {}, {"AutoTokenizer": 7}, {"AutoTokenizer": {"a": "b"}}])
def test_an_auto_map_that_names_no_file(auto_map):
    assert code_named({"auto_map": auto_map}, "AutoTokenizer") is None


def test_a_models_own_code_is_named_and_not_run():
    own = {"AutoConfig": "configuration_evil.C", "AutoModelForCausalLM": "modeling_evil.EvilForCausalLM"}
    config = {"architectures": ["EvilForCausalLM"], "model_type": "evil", "auto_map": own}
    with pytest.raises(UnsupportedArchitectureError, match="its own, modeling_evil.py .auto_map., which is never run"):
        architectures.find(config, "x")


def test_paths_in_a_tokenizers_config_are_not_followed(tmp_path):
    outside = tokenizer_folder(tmp_path / "outside", "<unk> secret") / "tokenizer.json"
    folder = tokenizer_folder(
        tmp_path / "t", tokenizer_file=str(outside), vocab_file=str(outside), name_or_path=str(outside.parent)
    )
    assert load_tokenizer(FolderSource(folder, "x")).get_vocab() == {"<unk>": 0, "a": 1, "b": 2}


def test_a_broken_tokenizer_says_how_to_go_on(tmp_path):
    folder = tokenizer_folder(tmp_path / "t")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(LoadingError, match="Give one with tokenizer="):
        load_tokenizer(FolderSource(folder, "the folder"))
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(CorruptCheckpointError, match="tokenizer_config.json"):
        load_tokenizer(FolderSource(folder, "the folder"))


def test_the_tokenizer_of_a_gguf_file(smollm2_gguf, smollm2):
    ours, theirs = load_tokenizer(resolve(str(smollm2_gguf))), load_tokenizer(resolve(str(smollm2)))
    assert ours("A mapped page.").input_ids == theirs("A mapped page.").input_ids


def test_nothing_is_left_behind_in_the_temporary_folder(tmp_path, monkeypatch):
    import tempfile

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    load_tokenizer(FolderSource(tokenizer_folder(tmp_path / "t"), "x"))
    assert os.listdir(scratch) == []
