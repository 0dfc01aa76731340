"""What goes in as tokens, tokenizers and layers: forms that are taken, and sentences for those that are not."""

import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.small_transformers import make_model, make_tokenizer, make_tokens
from transformer_lens import HookedTransformer, utils
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.head_detector import detect_head
from transformer_lens.hooked_transformer.token_input import is_text, tokens_of
from transformer_lens.loading.errors import CorruptCheckpointError, UnknownModelError
from transformer_lens.loading.sources.generation_config import read_stop_tokens
from transformer_lens.SVDInterpreter import SVDInterpreter
from transformer_lens.utilities.indices import as_index, as_layer

ROWS = st.integers(1, 4).flatmap(
    lambda length: st.lists(st.lists(st.integers(0, 28), min_size=length, max_size=length), min_size=1, max_size=3)
)
FORMS = {
    "lists": lambda rows: rows,
    "tuples": lambda rows: tuple(tuple(row) for row in rows),
    "a tensor": torch.tensor,
    "int32": lambda rows: torch.tensor(rows, dtype=torch.int32),
    "int16": lambda rows: torch.tensor(rows, dtype=torch.int16),
    "bytes": lambda rows: torch.tensor(rows, dtype=torch.uint8),
    "numpy": np.array,
    "nanoGPT's": lambda rows: np.array(rows, dtype=np.uint16),
    "numpy's numbers": lambda rows: [list(row) for row in np.array(rows)],
    "rows": lambda rows: [torch.tensor(row) for row in rows],
    "arrays": lambda rows: [np.array(row, dtype=np.int8) for row in rows],
}
INTEGERS = [int, np.int64, np.int8, torch.tensor, lambda n: torch.tensor([n]), np.array]


@pytest.mark.parametrize("form", FORMS)
@given(rows=ROWS)
def test_tokens_are_read_in_every_form(form, rows):
    for given_rows, wanted in ((rows, rows), (rows[0], [rows[0]])):
        if form in ("tuples", "numpy's numbers", "rows", "arrays") and given_rows is rows[0]:
            continue
        read = tokens_of(FORMS[form](given_rows))
        assert read.tolist() == wanted and read.dtype in (torch.int32, torch.int64)
    whole = torch.tensor(rows)
    assert tokens_of(whole) is whole


REFUSED = {
    "ragged": ([[1, 2], [3]], "1 to 2 tokens.*attention_mask"),
    "texts among tokens": (["a", 1], "one kind"),
    "rows among tokens": ([1, [2]], "rows of tokens"),
    "batches in a list": ([torch.ones(2, 2, dtype=torch.long)], "batch axis"),
    "a number": (5, r"pass \[5\]"),
    "a tensor of one": (torch.tensor(5), "list of one token"),
    "three axes": (torch.ones(1, 2, 3, dtype=torch.long), r"\(1, 2, 3\)"),
    "a batch encoding": ({"input_ids": [[1]]}, r"\['input_ids'\]"),
    "nothing": (None, "NoneType.*can be a text"),
    "embeddings": (torch.ones(2, 3), "float32.*start_at_layer"),
    "an array of floats": (np.ones(3), "float64"),
    "floats": ([1.0], "not an integer"),
    "a mask": (torch.tensor([True, False]), "bool"),
    "flags": ([True, False], "not an integer"),
    "an array of texts": (np.array(["a"]), "list of strings"),
    "bytes": (b"ab", "can be a text"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_tokens_is_told_what_to_pass(case):
    given_input, sentence = REFUSED[case]
    assert not is_text(given_input)
    with pytest.raises(ValueError, match=sentence):
        tokens_of(given_input)


def test_the_model_takes_tokens_wherever_it_takes_tokens():
    model = make_model(tokenizer=make_tokenizer())
    row = [4, 5, 6]
    whole = torch.tensor([row])
    for form in (row, [row], np.array(row), np.array([row])):
        assert torch.equal(model(form), model(whole))
        assert torch.equal(model.input_to_embed(form)[0], model.input_to_embed(whole)[0])
        torch.testing.assert_close(model.run_with_cache(form)[0], model(whole))
        quiet = {"max_new_tokens": 2, "do_sample": False, "verbose": False}
        assert torch.equal(model.generate(form, **quiet), model.generate(whole, **quiet))
        assert model.get_token_position(5, form) == 1
    assert model.to_str_tokens(row) == ["a", "b", "c"] and model.to_str_tokens([row, row]) == [["a", "b", "c"]] * 2
    directions = model.tokens_to_residual_directions(torch.tensor(row))
    assert torch.equal(model.tokens_to_residual_directions(row), directions)
    assert torch.equal(model.tokens_to_residual_directions(np.int64(5)), directions[1])
    residual = model(whole, stop_at_layer=1)
    loss = model(residual, start_at_layer=1, tokens=row, return_type="loss")
    torch.testing.assert_close(loss, model(whole, return_type="loss"))


@pytest.mark.parametrize("kind", ["gpt2", "shortformer", "llama_gqa", "alibi"])
def test_more_tokens_than_learned_positions_are_refused_before_anything_changes(kind):
    model = make_model(kind)
    learned = kind in ("gpt2", "shortformer")
    tokens = make_tokens(batch=2, length=25)
    cache = TransformerLensKeyValueCache.init_cache(model.cfg, "cpu", 2)
    model(tokens[:, :20], past_kv_cache=cache)
    mask = torch.ones_like(tokens)
    mask[:, :2] = 0  # padding has no position
    assert model(tokens, attention_mask=mask).shape[1] == 25
    if not learned:
        model(tokens[:, 20:], past_kv_cache=cache)
        return
    for call in (
        lambda: model(tokens),
        lambda: model(tokens[:, 20:], past_kv_cache=cache),
        lambda: model.get_residual(torch.zeros(2, 24, 14), 0),
        lambda: model.get_residual(torch.zeros(2, 1, 14), 23),
        lambda: model.generate(tokens[:, :20], max_new_tokens=9, stop_at_eos=False, verbose=False),
    ):
        with pytest.raises(ValueError, match=r"learned 23 positions \(cfg.n_ctx\): pass fewer"):
            call()
    assert cache.previous_attention_mask.shape == (2, 20) and cache[0].past_keys.shape[1] == 20


@pytest.mark.parametrize("token", [-1, 29, 400])
def test_tokens_outside_the_vocabulary_are_named(token):
    with pytest.raises(ValueError, match="the model has 29.*another model"):
        make_model()(torch.tensor([[3, token]]))


# --- the tokenizer


@pytest.mark.parametrize("how", ["assigned", "set", "at construction"])
def test_what_cannot_tokenize_is_refused_and_changes_nothing(how):
    own = make_tokenizer()
    model = make_model(tokenizer=own)
    for wrong, sentence in (
        ("gpt2", r"AutoTokenizer.from_pretrained\('gpt2'\)"),
        (own.backend_tokenizer, "PreTrainedTokenizerFast"),
        (5, "a int cannot be"),
    ):
        with pytest.raises(ValueError, match=sentence):
            if how == "assigned":
                model.tokenizer = wrong
            elif how == "set":
                model.set_tokenizer(wrong)
            else:
                make_model(tokenizer=wrong)
        assert model.tokenizer is own and model.cfg.tokenizer_prepends_bos is False


tokenizers = st.tuples(st.booleans(), st.booleans()).map(
    lambda flags: make_tokenizer(prepends_bos=flags[0], appends_eos=flags[1])
)


@given(first=tokenizers, second=tokenizers, how=st.sampled_from(["assigned", "set", "its settings"]))
def test_bos_comes_once_however_the_tokenizer_changes(first, second, how):
    model = make_model(tokenizer=copy.deepcopy(first))
    model.to_tokens("a b")
    if how == "assigned":
        model.tokenizer = second
    elif how == "set":
        model.set_tokenizer(second)
    else:
        model.tokenizer.backend_tokenizer.post_processor = second.backend_tokenizer.post_processor
    appended = [2] if second("a")["input_ids"][-1] == 2 else []
    assert model.to_tokens("a b", prepend_bos=True).tolist() == [[1, 4, 5, *appended]]
    assert model.to_tokens("a b", prepend_bos=False).tolist() == [[4, 5, *appended]]
    assert model.cfg.tokenizer_prepends_bos is (second("a")["input_ids"][0] == 1)


def test_the_name_is_that_of_the_tokenizer(tmp_path):
    from transformers import AutoTokenizer

    make_tokenizer().save_pretrained(tmp_path)
    named, unnamed = AutoTokenizer.from_pretrained(tmp_path), make_tokenizer()
    model = make_model(tokenizer=named)
    assert model.cfg.tokenizer_name == str(tmp_path)
    model.tokenizer = unnamed
    assert model.cfg.tokenizer_name is None
    model.tokenizer = named
    assert model.cfg.tokenizer_name == str(tmp_path)
    model.tokenizer = None
    assert model.cfg.tokenizer_name is None and model.cfg.tokenizer_prepends_bos is None
    assert make_model(tokenizer=unnamed, tokenizer_name=str(tmp_path)).cfg.tokenizer_name == str(tmp_path)


# --- stop tokens


def test_rows_end_at_the_tokenizers_eos_and_at_those_of_the_generation_config():
    model = make_model(tokenizer=make_tokenizer())
    tokens = torch.tensor([[4, 5, 6]])
    greedy = {"max_new_tokens": 8, "do_sample": False, "verbose": False}
    free = model.generate(tokens, stop_at_eos=False, **greedy)[0, 3:].tolist()
    assert model.stop_tokens == ()
    for stop in dict.fromkeys(free):
        model.stop_tokens = (27, stop)
        assert model.generate(tokens, **greedy)[0, 3:].tolist() == free[: free.index(stop) + 1]
        parts = model.generate_stream(tokens, **greedy)
        assert torch.cat(list(parts), dim=1)[0, 3:].tolist() == free[: free.index(stop) + 1]
        # What the caller says stands for all of them.
        other = next(token for token in range(29) if token not in free)
        assert model.generate(tokens, eos_token_id=other, **greedy)[0, 3:].tolist() == free
        for form in INTEGERS:
            assert model.generate(tokens, eos_token_id=form(stop), **greedy).shape[1] == 3 + free.index(stop) + 1
    model.tokenizer = None
    assert model.generate(tokens, **greedy).shape[1] < 12
    with pytest.raises(ValueError, match="needs an EOS"):
        model.generate(tokens, eos_token_id=[], **greedy)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("checkpoint")
    config = GPT2Config(n_embd=24, n_head=3, n_layer=1, vocab_size=29, n_positions=19, bos_token_id=1, eos_token_id=6)
    theirs = GPT2LMHeadModel(config)
    theirs.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder, theirs


def test_stop_tokens_are_read_beside_the_weights_and_off_a_live_model(checkpoint):
    folder, theirs = checkpoint
    path = folder / "generation_config.json"
    for said, wanted in (([7, 9, 7], (7, 9)), (8, (8,)), (None, ()), ([28, 29, 500], (28,)), (-1, ())):
        path.write_text(json.dumps({"eos_token_id": said}))
        model = HookedTransformer.from_pretrained(folder, device="cpu")
        assert model.stop_tokens == wanted
        assert model.cfg.tokenizer_name == str(folder)
    path.unlink()
    assert HookedTransformer.from_pretrained(folder, device="cpu").stop_tokens == (6,)
    theirs.generation_config.eos_token_id = [7, 9]
    assert HookedTransformer.from_pretrained(hf_model=theirs, device="cpu").stop_tokens == (7, 9)
    path.write_text(json.dumps({"eos_token_id": ["x"]}))
    with pytest.raises(CorruptCheckpointError, match=r"generation_config.json.*\n.*eos_token_id="):
        HookedTransformer.from_pretrained(folder, device="cpu")
    path.unlink()


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_an_eos_token_id_is_tokens_or_refused(said):
    listed = said if isinstance(said, list) else [] if said is None else [said]
    if all(type(token) is int for token in listed):
        assert set(read_stop_tokens(said, "it")) == {token for token in listed if token >= 0}
    else:
        with pytest.raises(CorruptCheckpointError, match="^it is"):
            read_stop_tokens(said, "it")


# --- layers


@pytest.mark.parametrize("form", INTEGERS)
def test_a_layer_is_of_any_integer_type(form):
    model = make_model(tokenizer=make_tokenizer())
    _, cache = model.run_with_cache(make_tokens(batch=1))
    for layer in (0, 1, 2, -1, -3):
        assert cache["pattern", form(layer)] is cache[f"blocks.{layer % 3}.attn.hook_pattern"]
        assert torch.equal(cache.get_neuron_results(form(layer)), cache.get_neuron_results(layer))
        assert torch.equal(model(make_tokens(), stop_at_layer=form(layer)), model(make_tokens(), stop_at_layer=layer))
        scores = [detect_head(model, "a b", "induction_head", [(given, form(1))]) for given in (layer, form(layer))]
        assert torch.equal(*scores)
    for layer in (1, 2, 3, -1):
        for call in (
            lambda at: cache.accumulated_resid(at),
            lambda at: cache.decompose_resid(at, apply_ln=True),
            lambda at: cache.stack_head_results(at),
            lambda at: cache.stack_neuron_results(at),
            lambda at: cache.get_full_resid_decomposition(at, expand_neurons=False),
            lambda at: cache.stack_activation("z", at),
        ):
            assert torch.equal(call(form(layer)), call(layer))
    assert utils.get_act_name("normalized", form(7), "ln2") == "blocks.7.ln2.hook_normalized"
    assert torch.equal(model.accumulated_bias(form(2)), model.accumulated_bias(2))
    svd = SVDInterpreter(model)
    with_form, with_int = (svd.get_singular_vectors("w_in", layer, 2).abs() for layer in (form(1), 1))
    assert torch.equal(with_form, with_int)


def test_what_is_no_layer_is_refused():
    _, cache = make_model().run_with_cache(make_tokens(batch=1))
    for layer, sentence in ((-4, "layers 0 to 2"), (3, "blocks.3.attn.hook_pattern.*nearest")):
        for form in INTEGERS:
            with pytest.raises(KeyError, match=sentence):
                cache["pattern", form(layer)]
    for wrong in (1.0, torch.tensor(1.0), True, np.bool_(True), torch.tensor(True), torch.tensor([1, 2])):
        with pytest.raises(TypeError, match="not an integer"):
            as_index(wrong, "layer")
        with pytest.raises(TypeError, match="not an integer"):
            cache["pattern", wrong]
    with pytest.raises(IndexError, match="layer is 4"):
        as_layer(4, 4)
    with pytest.raises(ValueError, match="n_layers - 1"):
        utils.get_act_name("k", -1)
    with pytest.raises(ValueError, match="0 to 3"):
        make_model().accumulated_bias(-1)


def test_a_config_may_name_a_tokenizer_that_is_gone(tmp_path):
    model = make_model(tokenizer_name=None)
    model.cfg.tokenizer_name = str(tmp_path / "gone")
    state = model.state_dict()
    for build in (lambda: HookedTransformer(model.cfg), lambda: HookedTransformer.from_state_dict(state, model.cfg)):
        with pytest.raises(UnknownModelError, match="cfg.tokenizer_name = None"):
            build()
    given_one = make_tokenizer()
    loaded = HookedTransformer.from_state_dict(state, model.cfg, tokenizer=given_one)
    assert loaded.tokenizer is given_one and loaded.cfg.tokenizer_name is None
    assert model.cfg.tokenizer_name == str(tmp_path / "gone")
