"""Tokenizer files of strangers: whatever they hold, code beside them does not run and every failure has a class."""

import base64
import json
import warnings

import gguf
import pytest

from tests.unit.loading.test_sources import tokenizer_folder
from transformer_lens.loading import LoadingError
from transformer_lens.loading.errors import CorruptCheckpointError
from transformer_lens.loading.sources import FolderSource, GGUFSource, load_tokenizer, tokenizers
from transformer_lens.loading.sources.handed_over import handed_over, is_failure
from transformer_lens.loading.sources.remote_code import without_code


def charsmap(data: bytes) -> dict:
    return {"normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}}


# Each makes the Rust code below transformers panic, when it is read or when it is first used.
PANICS = {
    "charsmap-of-nothing": charsmap(bytes(3)),
    "charsmap-that-points-outside": charsmap(b"\x04\x00\x00\x00" + b"\xff" * 4),
    "special-token-that-is-not-there": {
        "post_processor": {
            "type": "TemplateProcessing", "pair": [], "special_tokens": {},
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        }
    },
    "decoder-that-cuts-too-much": {"decoder": {"type": "Strip", "content": "a", "start": 9, "stop": 9}},
}  # fmt: skip


@pytest.mark.parametrize("name", PANICS)
def test_a_panic_is_a_loading_error(tmp_path, name):
    path = tokenizer_folder(tmp_path / "t") / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **PANICS[name]}))
    with pytest.raises(LoadingError, match=r"tokenizer of the folder cannot be loaded: \w+: .*(?s:.*)tokenizer=\.\.\."):
        load_tokenizer(FolderSource(path.parent, "the folder"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_a_program_is_no_failure_of_a_tokenizer(tmp_path, monkeypatch, error):
    assert not is_failure(error())

    def stop(*args, **kwargs):
        raise error

    monkeypatch.setattr(tokenizers, "_tried", stop)
    with pytest.raises(error):
        load_tokenizer(FolderSource(tokenizer_folder(tmp_path / "t"), "x"))


VALUES = [None, True, 7, -1.5, 1 << 70, "", "text", [], [1], ["<unk>"], {}, {"a": {"b": 1}}, {"content": 5}]
FIELDS = [
    "tokenizer_class", "model_max_length", "bos_token", "eos_token", "unk_token", "pad_token", "added_tokens_decoder",
    "additional_special_tokens", "extra_special_tokens", "padding_side", "truncation_side", "auto_map",
    "model_input_names", "clean_up_tokenization_spaces", "chat_template", "split_special_tokens",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("field", FIELDS)
def test_values_of_any_type_load_or_are_a_loading_error(tmp_path, field):
    """What loads can be used; what cannot be used says so on loading."""
    for place, value in enumerate(VALUES):
        folder = tokenizer_folder(tmp_path / str(place), **{field: value})
        try:
            tokenizer = load_tokenizer(FolderSource(folder, "x"))
        except LoadingError as error:
            assert "x" in str(error)
            continue
        rows = tokenizer(["a b a", "a"], truncation=True, max_length=4)["input_ids"]
        assert all(isinstance(token, int) for row in rows for token in row), value


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["special_tokens_map.json", "added_tokens.json", "tokenizer.json", "config.json"])
def test_files_of_any_type_load_or_are_a_loading_error(tmp_path, name):
    for place, text in enumerate(
        ["", "[]", "7", '"x"', "null", "{}", "[" * 3000, '{"a": [', '{"model_type": []}', "\0"]
    ):
        folder = tokenizer_folder(tmp_path / str(place))
        (folder / name).write_text(text)
        try:
            load_tokenizer(FolderSource(folder, "x"))
        except LoadingError:
            pass


def test_a_file_of_a_tokenizer_has_a_size(tmp_path):
    folder = tokenizer_folder(tmp_path / "t")
    with (folder / "tokenizer.json").open("r+b") as file:
        file.truncate(tokenizers._LARGEST + 1)
    with pytest.raises(CorruptCheckpointError, match="tokenizer.json has .* a file of a tokenizer has less than"):
        load_tokenizer(FolderSource(folder, "x"))


# -- beside a GGUF file ------------------------------------------------------------------------------------------------


def gguf_with_tokenizer(path):
    writer = gguf.GGUFWriter(str(path), "gpt2")
    for add, size in ((writer.add_context_length, 16), (writer.add_embedding_length, 8), (writer.add_block_count, 1),
                      (writer.add_head_count, 2), (writer.add_feed_forward_length, 32)):  # fmt: skip
        add(size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "ab", "<|endoftext|>"])
    writer.add_token_types([1, 1, 1, 3])
    writer.add_token_merges(["a b"])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_unk_token_id):
        add(3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return GGUFSource(path, "the file")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("trust", [False, True])
def test_neighbours_of_a_gguf_file_neither_run_nor_ask_nor_count(tmp_path, monkeypatch, trust):
    """transformers would ask on standard input whether to run the class that a neighbour names."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *asked: pytest.fail(f"asked: {asked}"))
    folder, mark = tmp_path / "m", tmp_path / "mark"
    folder.mkdir()
    source = gguf_with_tokenizer(folder / "m.gguf")
    alone = load_tokenizer(source, trust_remote_code=trust)
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Mine:\n    pass\n")
    named = {"AutoTokenizer": ["evil.Mine", "evil.Mine"], "AutoConfig": "evil.Mine", "AutoProcessor": "evil.Mine"}
    neighbours = ("tokenizer_config.json", "config.json", "generation_config.json", "processor_config.json",
                  "preprocessor_config.json", "special_tokens_map.json", "adapter_config.json")  # fmt: skip
    for name in neighbours:
        (folder / name).write_text(json.dumps({"auto_map": named, "tokenizer_class": "Mine", "bos_token": "b"}))
    tokenizer = load_tokenizer(source, trust_remote_code=trust)
    assert not mark.exists()
    assert (tokenizer is None) == (alone is None)
    if tokenizer is not None:
        assert tokenizer.get_vocab() == alone.get_vocab() and tokenizer.bos_token == alone.bos_token
        assert tokenizer.name_or_path == "the file"


def test_what_is_handed_over_is_nothing_but_the_files(tmp_path, monkeypatch):
    for name in ("a.bin", "b.bin", "evil.py"):
        (tmp_path / name).write_text(name)
    for allowed in (True, False):
        if not allowed:
            monkeypatch.setattr("os.symlink", lambda *args: (_ for _ in ()).throw(OSError("not allowed")))
            monkeypatch.setattr("os.link", lambda *args: (_ for _ in ()).throw(OSError("another file system")))
        with handed_over([tmp_path / "a.bin", tmp_path / "b.bin"]) as folder:
            assert {path.name: path.read_text() for path in folder.iterdir()} == {"a.bin": "a.bin", "b.bin": "b.bin"}
        assert not folder.exists() and (tmp_path / "a.bin").read_text() == "a.bin"


def test_no_part_of_a_config_names_code():
    evil = {"auto_map": {}, "_attn_implementation": "x/y", "attn_implementation": "x/y", "trust_remote_code": True}
    config = {**evil, "model_type": "llama", "text_config": {**evil, "layers": [{**evil, "n": 1}]}, "n": [1, 2.5, None]}
    assert without_code(config) == {"model_type": "llama", "text_config": {"layers": [{"n": 1}]}, "n": [1, 2.5, None]}
    assert config["auto_map"] == {}


def test_warnings_of_a_tokenizer_inside_gguf_say_what_failed(tmp_path, monkeypatch):
    source = gguf_with_tokenizer(tmp_path / "m.gguf")
    monkeypatch.setattr(tokenizers, "_tried", lambda tokenizer: 1 / 0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert load_tokenizer(source) is None
    assert any("cannot be read by this transformers" in str(one.message) for one in said)
