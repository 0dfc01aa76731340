"""Sampling, initialization, devices, tokens and datasets."""

import copy
import logging
import math
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

from transformer_lens import utilities
from transformer_lens.utilities import devices, hf_utils, multi_gpu
from transformer_lens.utilities.logits_utils import logits_to_df, sample_logits

LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0], [-1.0, 0.0, 1.0, 2.0]])


def drawn(**kwargs) -> list[set[int]]:
    draws = torch.stack([sample_logits(LOGITS, **kwargs) for _ in range(200)])
    return [set(draws[:, row].tolist()) for row in range(2)]


def test_samples_follow_the_probabilities():
    draws = sample_logits(LOGITS[:1].expand(20000, -1))
    assert torch.allclose(draws.bincount(minlength=4) / 20000, LOGITS[0].softmax(0), atol=0.02)
    assert drawn(temperature=0.0) == [{0}, {3}]
    assert drawn(temperature=0.01) == [{0}, {3}]


def test_samples_come_from_the_most_probable():
    assert drawn(top_k=2, temperature=5.0) == [{0, 1}, {2, 3}]
    assert drawn(top_k=99, temperature=50.0) == [{0, 1, 2, 3}] * 2
    # probabilities 0.644, 0.237, 0.087, 0.032: the set that first reaches 0.7 has two
    assert drawn(top_p=0.7) == [{0, 1}, {2, 3}]
    assert drawn(top_p=0.1) == [{0}, {3}]
    assert drawn(top_p=1.0, temperature=50.0) == [{0, 1, 2, 3}] * 2


def test_penalties_for_tokens_seen():
    before = LOGITS.clone()
    tokens = torch.tensor([[0, 0, 0], [1, 2, 2]])
    assert drawn(freq_penalty=100.0, tokens=tokens, top_k=1) == [{1}, {3}]
    assert sample_logits(LOGITS, repetition_penalty=3.0, tokens=tokens, temperature=0.0).tolist() == [1, 3]
    negative = -LOGITS[:1] - 3
    assert sample_logits(negative, repetition_penalty=9.0, tokens=torch.tensor([[3]]), temperature=0.0).tolist() == [2]
    assert torch.equal(LOGITS, before)


@pytest.mark.parametrize(
    "wrong",
    [
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"freq_penalty": 1.0},
        {"repetition_penalty": 2.0},
        {"repetition_penalty": 0.0, "tokens": torch.zeros(2, 1, dtype=torch.int64)},
    ],
)
def test_numbers_out_of_range(wrong):
    with pytest.raises(AssertionError):
        sample_logits(LOGITS, **wrong)


def test_logits_as_a_table():
    pytest.importorskip("pandas")
    table = logits_to_df(LOGITS[1], SimpleNamespace(decode=lambda tokens: f"<{tokens[0]}>"), top_k=2)
    assert table["token_id"].tolist() == [3, 2] and table["token_string"].tolist() == ["<3>", "<2>"]
    assert table["prob"].tolist() == pytest.approx(LOGITS[1].softmax(0)[[3, 2]].tolist())
    assert logits_to_df(LOGITS[1])["logit"].tolist() == [2, 1, 0, -1]


@pytest.mark.parametrize(("shape", "fans"), [((3,), (1, 3)), ((3, 5), (3, 5)), ((2, 3, 5), (3, 10))])
def test_fans(shape, fans):
    assert utilities.calc_fan_in_and_fan_out(torch.zeros(shape)) == fans


@pytest.mark.parametrize("shape", [(), (1, 2, 3, 4)])
def test_shapes_without_fans(shape):
    with pytest.raises(ValueError, match="no fan-in"):
        utilities.calc_fan_in_and_fan_out(torch.zeros(shape))


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_random_starts(kind):
    weight = torch.empty(30, 400, 50)
    bound = math.sqrt(3) if kind == "uniform" else 6
    xavier = getattr(utilities, f"init_xavier_{kind}_")
    kaiming = getattr(utilities, f"init_kaiming_{kind}_")
    cases = [
        (lambda: xavier(weight, gain=2.0), 2 * math.sqrt(2 / (400 + 1500))),
        (lambda: kaiming(weight), math.sqrt(2 / 400)),
        (lambda: kaiming(weight, nonlinearity="linear", gain=3.0), 3 / math.sqrt(400)),
        (lambda: kaiming(weight, mode="fan_out"), math.sqrt(2 / 1500)),
        (lambda: kaiming(weight, a=0.5, nonlinearity="leaky_relu"), math.sqrt(2 / 1.25 / 400)),
    ]
    for fill, std in cases:
        assert fill() is weight
        assert weight.std().item() == pytest.approx(std, rel=0.01) and weight.abs().max() <= bound * std * 1.001
    with pytest.raises(ValueError, match="mode"):
        kaiming(weight, mode="fan_up")


def test_the_default_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert devices.get_device() == torch.device("cpu")
    monkeypatch.setenv("TRANSFORMERLENS_ALLOW_MPS", "1")
    assert devices.get_device() == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices.get_device() == torch.device("cuda")


def test_warns_of_mps(caplog, monkeypatch):
    devices.warn_if_mps("cpu")
    monkeypatch.setenv("TRANSFORMERLENS_ALLOW_MPS", "1")
    devices.warn_if_mps("mps")
    assert not caplog.text
    monkeypatch.delenv("TRANSFORMERLENS_ALLOW_MPS")
    devices.warn_if_mps(torch.device("mps"))
    assert "silently wrong" in caplog.text


@pytest.mark.parametrize(
    ("layers", "n_devices", "device", "expected"),
    [
        (4, 2, "cuda", [0, 0, 1, 1]),
        (5, 2, "cuda", [0, 0, 0, 1, 1]),
        (5, 3, "cuda:1", [1, 1, 2, 2, 3]),
        (4, 1, "cuda:2", [2, 2, 2, 2]),
    ],
)
def test_blocks_are_dealt_out_evenly(layers, n_devices, device, expected):
    cfg = SimpleNamespace(n_layers=layers, n_devices=n_devices, device=device)
    placed = [multi_gpu.get_device_for_block_index(i, cfg) for i in range(layers)]
    assert placed == [torch.device("cuda", i) for i in expected]
    assert multi_gpu.get_device_for_block_index(layers, cfg) == placed[-1]
    assert multi_gpu.get_device_for_block_index(0, cfg, "cpu") == torch.device("cpu")


def test_the_freest_gpu(monkeypatch):
    free = {0: 5, 1: 9, 2: 7}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(multi_gpu, "calculate_available_device_cuda_memory", free.__getitem__)
    assert multi_gpu.get_best_available_cuda_device() == torch.device("cuda:1")
    assert multi_gpu.get_best_available_device(SimpleNamespace(device="cuda", n_devices=1)) == torch.device("cuda:0")
    assert multi_gpu.get_best_available_device(SimpleNamespace(device="cpu", n_devices=1)) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(EnvironmentError):
        multi_gpu.get_best_available_cuda_device()


def test_moving_a_model_updates_its_config(capsys):
    model = nn.Linear(2, 3)
    model.cfg = SimpleNamespace(device="cpu", dtype=torch.float32)
    assert devices.move_to_and_update_config(model, torch.device("meta")) is model
    assert model.cfg.device == "meta" and model.weight.is_meta
    devices.move_to_and_update_config(model, torch.float16, print_details=False)
    assert model.cfg.dtype == model.weight.dtype == torch.float16
    assert capsys.readouterr().out == "Moving model to device:  meta\n"


VOCABULARY = {word: i for i, word in enumerate(["<pad>", "<bos>", "<eos>", "a", "b", "c", "<unk>"])}
PAD, BOS, EOS = 0, 1, 2


def tokenizer(pad="<pad>", side="right"):
    words = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"} | ({"pad_token": pad} if pad else {})
    return PreTrainedTokenizerFast(tokenizer_object=words, padding_side=side, **special)


@pytest.mark.parametrize("pad", [PAD, BOS])
def test_attention_masks(pad):
    right, left = tokenizer(("<pad>", "<bos>")[pad]), tokenizer(("<pad>", "<bos>")[pad], side="left")
    at_right, at_left = (
        torch.tensor([[BOS, 3, 4, pad], [BOS, 3, 4, 5]]),
        torch.tensor([[pad, BOS, 3, 4], [BOS, 3, 4, 5]]),
    )
    for prepend_bos in (True, False):
        assert utilities.get_attention_mask(right, at_right, prepend_bos).tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert utilities.get_attention_mask(left, at_left, True).tolist() == [[0, 1, 1, 1], [1, 1, 1, 1]]
    assert utilities.get_attention_mask(left, at_left, False).tolist() == [[0, 1, 1, 1], [1, 1, 1, 1]]
    assert utilities.get_attention_mask(right, at_left, True, padding_side="left").tolist()[0] == [0, 1, 1, 1]
    assert utilities.get_attention_mask(tokenizer(pad=None), at_left, True).all()


@pytest.mark.parametrize("pad", [PAD, BOS])
def test_bos_is_taken_out(pad):
    words = tokenizer(("<pad>", "<bos>")[pad])
    tokens = torch.tensor([[BOS, 3, 4, pad], [BOS, 3, 4, 5]])
    assert utilities.get_tokens_with_bos_removed(words, tokens).tolist() == [[3, 4, pad], [3, 4, 5]]
    tokens = torch.tensor([[pad, BOS, 3, 4], [BOS, 3, 4, 5]])
    removed = utilities.get_tokens_with_bos_removed(words, tokens, padding_side="left")
    assert removed.tolist() == [[pad, 3, 4], [3, 4, 5]]


def test_bos_is_written_in_front():
    for bos in ("<bos>", tokenizer()):
        assert utilities.get_input_with_manually_prepended_bos(bos, "a") == "<bos>a"
        assert utilities.get_input_with_manually_prepended_bos(bos, ["a", "b"]) == ["<bos>a", "<bos>b"]


def test_a_tokenizer_that_adds_bos_is_a_copy():
    words = tokenizer()
    changed = utilities.get_tokenizer_with_bos(words)
    assert changed is not words and changed.add_bos_token and "add_bos_token" not in words.init_kwargs
    assert utilities.get_tokenizer_with_bos(changed) is changed
    assert changed("a")["input_ids"][-1] == VOCABULARY["a"]


class Texts:
    """As much of a ``datasets.Dataset`` as is needed."""

    def __init__(self, columns):
        self.columns = columns

    def select_columns(self, names):
        return Texts({name: self.columns[name] for name in names})

    def map(self, function, batched, remove_columns, **kwargs):
        assert batched and list(self.columns) == remove_columns
        made = Texts(function(copy.deepcopy(self.columns)))
        made.kwargs = kwargs
        return made

    def set_format(self, **kwargs):
        self.format = kwargs


def test_texts_become_rows_of_tokens():
    texts = Texts({"text": ["a b", "c", "a b c a"], "other": [1, 2, 3]})
    rows = utilities.tokenize_and_concatenate(texts, tokenizer(), max_length=4, num_proc=1)
    assert rows.columns["tokens"].tolist() == [[BOS, 3, 4, EOS], [BOS, 5, EOS, 3], [BOS, 4, 5, 3]]
    assert rows.format == {"type": "torch", "columns": ["tokens"]} and rows.kwargs == {"num_proc": 1}
    rows = utilities.tokenize_and_concatenate(texts, tokenizer(), max_length=5, add_bos_token=False, streaming=True)
    assert rows.columns["tokens"].tolist() == [[3, 4, EOS, 5, EOS]] and rows.kwargs == {}
    short = utilities.tokenize_and_concatenate(texts, tokenizer(), max_length=12)
    assert short.columns["tokens"].tolist() == [[BOS, 3, 4, EOS, 5, EOS, 3, 4, 5, 3, PAD, PAD]]


def test_datasets_have_short_names():
    with pytest.raises(ValueError, match="owt"):
        utilities.get_dataset("no such dataset")


def test_the_cache_can_be_emptied(tmp_path, monkeypatch):
    (tmp_path / "hub" / "models--some").mkdir(parents=True)
    monkeypatch.setattr(hf_utils, "CACHE_DIR", str(tmp_path / "hub"))
    for _ in range(2):
        hf_utils.clear_huggingface_cache()
        assert not (tmp_path / "hub").exists()


def test_keyword_arguments_that_fit():
    assert utilities.select_compatible_kwargs({"a": 1, "b": 2}, lambda a, c=0: None) == {"a": 1}


class Model:
    """Predicts that each token is followed by the next one of the alphabet."""

    def to_tokens(self, text, prepend_bos=None):
        return torch.tensor([[26] * (prepend_bos is not False) + [ord(letter) - 97 for letter in text.strip()]])

    def to_str_tokens(self, text, prepend_bos=None):
        return list(text)

    def to_string(self, token):
        return chr(int(token) + 97)

    def __call__(self, tokens):
        return 5.0 * nn.functional.one_hot((tokens + 1) % 27, 27).float()


def test_a_prompts_answers_are_ranked(capsys):
    utilities.test_prompt("ab", "cdf", Model(), top_k=1)
    out = capsys.readouterr().out
    assert "Ranks of the answer tokens: [('c', 0), ('d', 0), ('f', 1)]" in out
    assert "Top 0th token. Logit:  5.00 Prob: 85.09% Token: |c|" in out
    utilities.test_prompt("ab", ["c", "x"], Model(), print_details=False)
    assert capsys.readouterr().out == "Ranks of the answer tokens: [[('c', 0), ('x', 1)]]\n"


@pytest.mark.parametrize("streaming", [True, False])
def test_texts_longer_than_the_tokenizers_maximum_are_no_matter(streaming, caplog, monkeypatch):
    words = tokenizer()
    words.model_max_length = 3
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("transformers")]:
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    texts = Texts({"text": ["a b c a b c"], "other": [1]})
    rows = utilities.tokenize_and_concatenate(texts, words, max_length=4, streaming=streaming)
    assert rows.columns["tokens"].tolist() == [[BOS, 3, 4, 5], [BOS, 3, 4, 5]]
    assert "longer than" not in caplog.text
    # What it would have said.
    words(["a b c a b c"], add_special_tokens=False)
    assert "longer than" in caplog.text
