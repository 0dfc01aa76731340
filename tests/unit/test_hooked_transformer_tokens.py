"""Text to tokens and back."""

import numpy as np
import pytest
import torch

from tests.unit.small_transformers import BASE, make_model, make_tokenizer
from transformer_lens.components.parameter import pending_parameter_device
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.HookedTransformer import HookedTransformer

A, B, C = 4, 5, 6
PAD, BOS, EOS = 0, 1, 2


@pytest.fixture(params=[False, True], ids=["bare", "prepends_bos"])
def model(request):
    return make_model(tokenizer=make_tokenizer(prepends_bos=request.param))


def test_bos_comes_once_or_not_at_all(model):
    assert model.to_tokens("a b").tolist() == [[BOS, A, B]]
    assert model.to_tokens("a b", prepend_bos=False).tolist() == [[A, B]]
    model.cfg.default_prepend_bos = False
    assert model.to_tokens("a b").tolist() == [[A, B]]
    assert model.to_tokens("a b", prepend_bos=True).tolist() == [[BOS, A, B]]
    assert model.cfg.default_prepend_bos is False


def test_padding_is_on_the_side_asked_for(model):
    assert model.to_tokens(["a b", "c"]).tolist() == [[BOS, A, B], [BOS, C, PAD]]
    assert model.to_tokens(["a b", "c"], padding_side="left").tolist() == [[BOS, A, B], [PAD, BOS, C]]
    assert model.to_tokens(["a b", "c"], padding_side="left", prepend_bos=False).tolist() == [[A, B], [PAD, C]]
    assert model.tokenizer.padding_side == "right"
    with pytest.raises(ValueError, match="'left', 'right'"):
        model.to_tokens("a", padding_side="top")


def test_length_is_cut_to_the_context(model):
    long = " ".join("ab" for _ in range(40))
    for prepend_bos in (True, False):
        assert model.to_tokens(long, prepend_bos=prepend_bos).shape == (1, 23)
        assert model.to_tokens(long, prepend_bos=prepend_bos, truncate=False).shape == (1, 40 + prepend_bos)
    model.tokenizer.truncation_side = "left"
    assert model.to_tokens(long + " c")[0, [0, -1]].tolist() == [BOS, C]


def test_no_text_is_no_tokens(model):
    assert model.to_tokens("").tolist() == [[BOS]]
    empty = model.to_tokens("", prepend_bos=False)
    assert empty.shape == (1, 0) and empty.dtype == torch.long


def test_an_appended_eos_is_not_taken_for_a_bos():
    model = make_model(tokenizer=make_tokenizer(appends_eos=True, bos_token="<eos>"))
    assert model.cfg.tokenizer_prepends_bos is False
    assert model.to_tokens("a").tolist() == [[EOS, A, EOS]]
    assert model.to_tokens("a", prepend_bos=False).tolist() == [[A, EOS]]


def test_the_tokenizer_stays_the_callers():
    tokenizer = make_tokenizer(prepends_bos=True, padding_side="left")
    model = make_model(tokenizer=tokenizer)
    assert model.tokenizer is tokenizer and tokenizer.padding_side == "right"
    tokenizer.padding_side = "left"
    model.set_tokenizer(tokenizer, default_padding_side=None)
    assert tokenizer.padding_side == "left"
    model.to_tokens(["a", "b c"], prepend_bos=False, padding_side="right")
    assert tokenizer.padding_side == "left" and tokenizer("a")["input_ids"] == [BOS, A]
    with pytest.raises(ValueError, match="side"):
        model.set_tokenizer(tokenizer, default_padding_side="middle")


def test_special_tokens_that_are_missing_are_found_in_the_vocabulary():
    tokenizer = make_tokenizer(special=False, eos_token="<eos>")
    model = make_model(tokenizer=tokenizer)
    assert (tokenizer.eos_token, tokenizer.bos_token, tokenizer.pad_token) == ("<eos>", "<eos>", "<eos>")
    assert model.to_tokens(["a b", "c"]).tolist() == [[EOS, A, B], [EOS, C, EOS]]
    assert len(tokenizer) == 29


def test_a_tokenizer_without_special_tokens():
    model = make_model(tokenizer=make_tokenizer(special=False))
    with pytest.raises(ValueError, match="prepend_bos=False"):
        model.to_tokens("a")
    assert model.to_tokens(["a b", "c d"], prepend_bos=False).tolist() == [[A, B], [C, 7]]
    with pytest.raises(ValueError, match="pad_token"):
        model.to_tokens(["a b", "c"], prepend_bos=False)


def test_the_vocabulary_is_the_tokenizers_where_none_is_set():
    model = make_model(tokenizer=make_tokenizer(), d_vocab=-1, d_vocab_out=-1)
    assert model.cfg.d_vocab == model.cfg.d_vocab_out == 29
    assert model("a b").shape == (1, 3, 29)


def test_tokens_to_text(model):
    assert model.to_string([A, B]) == model.to_string(torch.tensor([A, B])) == "ab"
    assert model.to_string(torch.tensor(A)) == model.to_string(A) == "a"
    assert model.to_string(np.array([[A, B], [BOS, C]])) == ["ab", "<bos>c"]
    with pytest.raises(ValueError, match="neither"):
        model.to_string(torch.zeros(1, 1, 1, dtype=torch.long))


def test_text_by_token(model):
    assert model.to_str_tokens("a b") == ["<bos>", "a", "b"]
    assert model.to_str_tokens("a b", prepend_bos=False) == ["a", "b"]
    assert model.to_str_tokens(["a b", "c"]) == [["<bos>", "a", "b"], ["<bos>", "c"]]
    for row in (torch.tensor([A, B]), torch.tensor([[A, B]]), np.array([A, B])):
        assert model.to_str_tokens(row) == ["a", "b"]
    assert model.to_str_tokens(torch.tensor(A)) == ["a"]
    assert model.to_str_tokens([torch.tensor([A]), "b"]) == [["a"], ["<bos>", "b"]]
    with pytest.raises(ValueError, match="single row"):
        model.to_str_tokens(torch.zeros(2, 2, dtype=torch.long))


def test_single_tokens(model):
    assert model.to_single_token("c") == C
    assert model.to_single_str_token(C) == "c"
    for text in ("a b", ""):
        with pytest.raises(AssertionError, match="single token"):
            model.to_single_token(text)


def test_where_a_token_is(model):
    for token in ("b", B, torch.tensor(B), torch.tensor([B])):
        assert model.get_token_position(token, "a b c b") == 2
        assert model.get_token_position(token, "a b c b", mode="last") == 4
        assert model.get_token_position(token, "a b c b", prepend_bos=False) == 1
        assert model.get_token_position(token, torch.tensor([[A, B, C]])) == 1
    with pytest.raises(ValueError, match="does not occur"):
        model.get_token_position("d", "a b")
    with pytest.raises(Exception, match="one row|Type-check"):
        model.get_token_position("a", torch.zeros(2, 3, dtype=torch.long))


def test_directions_of_tokens():
    model = make_model(tokenizer=make_tokenizer())
    for token in ("c", C, torch.tensor(C), torch.tensor([C])):
        assert torch.equal(model.tokens_to_residual_directions(token), model.W_U[:, C])
    tokens = torch.tensor([[A, B, C], [C, B, A]])
    directions = model.tokens_to_residual_directions(tokens)
    assert directions.shape == (2, 3, 14) and torch.equal(directions[1, 0], model.W_U[:, C])


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.to_tokens("a"),
        lambda model: model.to_string([1]),
        lambda model: model.to_str_tokens(torch.tensor([1])),
        lambda model: model.to_single_token("a"),
        lambda model: model.to_single_str_token(1),
    ],
)
def test_what_needs_a_tokenizer_says_so(call):
    with pytest.raises(ValueError, match="set_tokenizer"):
        call(make_model())


def test_a_named_tokenizer_is_loaded(tmp_path):
    make_tokenizer(prepends_bos=True).save_pretrained(tmp_path)
    model = make_model(tokenizer_name=str(tmp_path))
    assert model.to_tokens("a b").tolist() == [[BOS, A, B]]
    given = make_tokenizer()
    assert make_model(tokenizer=given, tokenizer_name=str(tmp_path)).tokenizer is given
    with pending_parameter_device("meta"):
        loaded = HookedTransformer(HookedTransformerConfig(**BASE, tokenizer_name="nowhere/at-all"))
    assert loaded.tokenizer is None


def test_sample_data_is_used_where_it_is_there():
    model = make_model(tokenizer=make_tokenizer())
    model.dataset = [{"text": "a b"}]
    assert model.sample_datapoint() == "a b"
    assert model.sample_datapoint(tokenize=True).tolist() == [[BOS, A, B]]
    model.dataset = None
    with pytest.raises(ValueError, match="architecture"):
        model.sample_datapoint()
