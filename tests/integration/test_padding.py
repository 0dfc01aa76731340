"""What is padding, against transformers with an explicit attention mask."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from transformer_lens import HookedTransformer, evals
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.hooked_transformer.decoding import padding_of
from transformer_lens.utilities import get_attention_mask, get_tokens_with_bos_removed, lm_accuracy

WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", *"abcdefghijklmnopqrs"]
CLOSE = {"atol": 3e-5, "rtol": 1e-4}
# The names of BOS, EOS and padding, by what they share.
SPECIAL = {
    "apart": ("<bos>", "<eos>", "<pad>"),
    "pad is eos": ("<bos>", "<eos>", "<eos>"),
    "all are one": ("<eos>", "<eos>", "<eos>"),
}
EVERY_SPECIAL = pytest.mark.parametrize("special", SPECIAL)
EVERY_SIDE = pytest.mark.parametrize("side", ["left", "right"])
FAMILIES = ["learned", "rotary"]


def tokenizer_of(special, side="right"):
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    bos, eos, pad = SPECIAL[special]
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=bos, eos_token=eos, pad_token=pad, unk_token="<unk>", padding_side=side
    )


@functools.cache
def both(family):
    """Returns a model of transformers, and ours of its weights."""
    if family == "learned":
        theirs = GPT2LMHeadModel(
            GPT2Config(n_embd=24, n_head=3, n_layer=2, vocab_size=23, n_positions=19, bos_token_id=2, eos_token_id=2)
        )
    else:
        theirs = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=24,
                intermediate_size=40,
                num_attention_heads=6,
                num_key_value_heads=2,
                num_hidden_layers=2,
                vocab_size=23,
                max_position_embeddings=19,
            )
        )
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return theirs.eval(), HookedTransformer.from_pretrained(hf_model=theirs, device="cpu", progress=False)


def model_of(family, special, side):
    model = both(family)[1]
    model.set_tokenizer(tokenizer_of(special), default_padding_side=side)
    return model


def expected(family, tokens, mask):
    """Returns transformers' log-probs, and its loss of each prediction, 0 where one of the two is padding."""
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = both(family)[0](tokens, attention_mask=mask, position_ids=positions).logits.log_softmax(-1)
    losses = -logits[:, :-1].gather(2, tokens[:, 1:, None])[..., 0] * mask[:, :-1] * mask[:, 1:]
    return logits, losses, losses.sum() / (mask[:, :-1] * mask[:, 1:]).sum()


def padded(rows, pad, side):
    """Returns rows of tokens as a batch, and which of it they are."""
    length = max(map(len, rows))
    tokens, mask = torch.full((len(rows), length), pad), torch.zeros(len(rows), length, dtype=torch.long)
    for index, row in enumerate(rows):
        place = slice(length - len(row), length) if side == "left" else slice(0, len(row))
        tokens[index, place], mask[index, place] = torch.tensor(row), 1
    return tokens, mask


def agree(family, tokens, mask, logits, loss=None, per_token=None):
    wanted, losses, mean = expected(family, tokens, mask)
    real = mask.bool()
    torch.testing.assert_close(logits.log_softmax(-1)[real], wanted[real], **CLOSE)
    if loss is not None:
        torch.testing.assert_close(loss, mean, **CLOSE)
        torch.testing.assert_close(per_token, losses, **CLOSE)


rows_of_words = st.lists(
    st.lists(st.sampled_from(["<pad>", "<bos>", "<eos>", "a", "b", "c"]), min_size=2, max_size=6),
    min_size=1,
    max_size=4,
)


@EVERY_SPECIAL
@EVERY_SIDE
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=5)
@given(rows=rows_of_words, prepend_bos=st.booleans())
def test_padding_of_texts_is_what_they_were_padded_by(family, special, side, rows, prepend_bos):
    # Special tokens may stand anywhere in the texts, at their ends too.
    model = model_of(family, special, side)
    tokenizer = model.tokenizer
    bos = [tokenizer.bos_token_id] if prepend_bos else []
    tokens, mask = padded([bos + [WORDS.index(word) for word in row] for row in rows], tokenizer.pad_token_id, side)
    texts = [" ".join(row) for row in rows]
    assert torch.equal(model.to_tokens(texts, prepend_bos=prepend_bos), tokens)
    for given_side in (None, side):
        logits, loss = model(texts, return_type="both", prepend_bos=prepend_bos, padding_side=given_side)
        each = model(texts, return_type="loss", loss_per_token=True, prepend_bos=prepend_bos, padding_side=given_side)
        agree(family, tokens, mask, logits, loss, each)
    # The same with a mask, which always wins over any rule.
    logits, loss = model(tokens, return_type="both", attention_mask=mask)
    each = model(tokens, return_type="loss", loss_per_token=True, attention_mask=mask)
    agree(family, tokens, mask, logits, loss, each)


def rule(tokens, pad, side):
    """The rule, counted slowly."""
    if len(tokens) == 1 or tokens.shape[1] == 1:
        return torch.ones_like(tokens)
    runs = []
    for row in tokens.tolist():
        row = row if side == "left" else row[::-1]
        runs.append(next((index for index, token in enumerate(row) if token != pad), len(row)))
    mask = torch.ones_like(tokens)
    for index, run in enumerate(runs):
        padding = run - min(runs)
        mask[index, slice(0, padding) if side == "left" else slice(tokens.shape[1] - padding, None)] = 0
    return mask


batches = st.tuples(st.integers(1, 4), st.integers(1, 6)).flatmap(
    lambda size: st.lists(
        st.lists(st.sampled_from([0, 1, 2, 2, 4, 5]), min_size=size[1], max_size=size[1]),
        min_size=size[0],
        max_size=size[0],
    )
)


@EVERY_SPECIAL
@EVERY_SIDE
@given(rows=batches, prepend_bos=st.booleans())
def test_one_rule_finds_padding_in_tokens(special, side, rows, prepend_bos):
    tokens, tokenizer = torch.tensor(rows), tokenizer_of(special, side)
    mask = rule(tokens, tokenizer.pad_token_id, side)
    counted = padding_of(tokens, tokenizer.pad_token_id, side)
    assert torch.equal(tokens.shape[1] - counted, mask.sum(1))
    assert torch.equal(get_attention_mask(tokenizer, tokens, False), mask)
    known = get_attention_mask(tokenizer, tokens, True, padding_side=side)
    if special != "all are one" or side == "right" or len(rows) == 1 or len(rows[0]) == 1:
        assert torch.equal(known, mask)
    else:  # each row has one BOS in front
        runs = torch.tensor(rows).eq(2).long().cumprod(1).sum(1)
        assert torch.equal(known.sum(1), tokens.shape[1] - (runs - 1).clamp(min=0))
    assert padding_of(tokens, None, side).sum() == 0
    assert padding_of(tokens[:0], tokenizer.pad_token_id, side).shape == (0,)


@EVERY_SPECIAL
@EVERY_SIDE
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=5)
@given(rows=batches.filter(lambda rows: len(rows[0]) > 1))
def test_the_model_follows_the_rule_for_tokens(family, special, side, rows):
    model, tokens = model_of(family, special, side), torch.tensor(rows)
    mask = rule(tokens, model.tokenizer.pad_token_id, side)
    if (mask[:, :-1] * mask[:, 1:]).sum() == 0:
        return
    logits, loss = model(tokens, return_type="both")
    each = model(tokens, return_type="loss", loss_per_token=True)
    agree(family, tokens, mask, logits, loss, each)
    for form in (tokens.tolist(), tokens.numpy().astype(np.uint16), list(tokens)):
        assert torch.equal(model(form), logits)
    torch.testing.assert_close(model.loss_fn(logits, tokens), loss, **CLOSE)
    # From the residual stream at a layer on, given the tokens.
    middle = model(tokens, stop_at_layer=1)
    logits, loss = model(middle, start_at_layer=1, tokens=tokens, return_type="both")
    if family == "rotary" or side == "left":
        agree(family, tokens, mask, logits, loss, each)


@EVERY_SPECIAL
@EVERY_SIDE
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=5)
@given(row=st.lists(st.sampled_from([0, 1, 2, 4, 5]), min_size=2, max_size=7))
def test_a_row_alone_has_no_padding_and_decodes_as_it_runs(family, special, side, row):
    model, tokens = model_of(family, special, side), torch.tensor([row])
    ones = torch.ones_like(tokens)
    agree(family, tokens, ones, model(tokens))
    cache = TransformerLensKeyValueCache.init_cache(model.cfg, "cpu", 1)
    parts = [model(tokens[:, index : index + 1], past_kv_cache=cache) for index in range(len(row))]
    agree(family, tokens, ones, torch.cat(parts, dim=1))


@EVERY_SPECIAL
@EVERY_SIDE
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=5)
@given(
    rows=st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), min_size=2, max_size=3),
    new=st.lists(st.sampled_from([0, 1, 2, 4]), min_size=9, max_size=9),
    in_one_go=st.booleans(),
)
def test_what_is_decoded_after_a_padded_prompt_is_never_padding(family, special, side, rows, new, in_one_go):
    if in_one_go and side == "right":
        return  # several new tokens of several rows: padding on the right is possible again
    model = model_of(family, special, side)
    texts = [" ".join(row) for row in rows]
    prompt, mask = padded(
        [[model.tokenizer.bos_token_id, *map(WORDS.index, row)] for row in rows], model.tokenizer.pad_token_id, side
    )
    new = torch.tensor(new[: 3 * len(rows)]).view(len(rows), 3)
    for first in (texts, prompt):
        cache = TransformerLensKeyValueCache.init_cache(model.cfg, "cpu", len(rows))
        parts = [model(first, past_kv_cache=cache)]
        steps = [new] if in_one_go else new.split(1, dim=1)
        parts += [model(step, past_kv_cache=cache) for step in steps]
        agree(
            family,
            torch.cat([prompt, new], dim=1),
            torch.cat([mask, torch.ones_like(new)], dim=1),
            torch.cat(parts, dim=1),
        )


def test_a_loss_is_that_of_the_texts_alone():
    model = model_of("learned", "all are one", "right")
    texts = ["a b c d e f", "a", "c d e"]
    alone = [model(text, return_type="loss", loss_per_token=True)[0] for text in texts]
    torch.testing.assert_close(model(texts, return_type="loss"), torch.cat(alone).mean(), **CLOSE)
    torch.testing.assert_close(model(model.to_tokens(texts), return_type="loss"), torch.cat(alone).mean(), **CLOSE)
    tokens = model.to_tokens(texts)
    mask = get_attention_mask(model.tokenizer, tokens, True)
    each = lm_accuracy(model(tokens), tokens, per_token=True, attention_mask=mask)
    assert each.sum() / sum(map(len, alone)) == lm_accuracy(model(tokens), tokens, attention_mask=mask)
    # Packed text has no padding: every row ends in EOS here, and in random tokens nothing is padding.
    packed = torch.tensor([[4, 5, 6, 2], [7, 8, 9, 2]])
    ones = torch.ones_like(packed)
    torch.testing.assert_close(
        model(packed, return_type="loss"), model(packed, return_type="loss", attention_mask=ones), **CLOSE
    )
    assert (evals.induction_loss(model, subseq_len=6) > 0).all()


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda rows: torch.tensor(rows).bool()])
def test_a_mask_comes_in_any_form_and_holds_nothing_but_0_and_1(kind):
    model, tokens = model_of("learned", "apart", "left"), torch.tensor([[4, 5, 6], [7, 8, 9]])
    rows = [[0, 1, 1], [1, 1, 1]]
    agree("learned", tokens, torch.tensor(rows), model(tokens, attention_mask=kind(rows)))
    for wrong in ([[0, 2, 1], [1, 1, 1]], [[0.0, -1e9, 0.0], [0.0, 0.0, 0.0]]):
        with pytest.raises(ValueError, match="0 for padding"):
            model(tokens, attention_mask=torch.tensor(wrong))
    with pytest.raises(ValueError, match="no table"):
        model(tokens, attention_mask=[[1], [1, 1]])


@EVERY_SPECIAL
@EVERY_SIDE
def test_bos_is_taken_off_where_there_is_one(special, side):
    model = model_of("learned", special, side)
    texts = ["a b c", "d"]
    with_bos, without = (model.to_tokens(texts, prepend_bos=on) for on in (True, False))
    assert torch.equal(get_tokens_with_bos_removed(model.tokenizer, with_bos), without)
    if special != "all are one":
        assert torch.equal(get_tokens_with_bos_removed(model.tokenizer, without), without)
        mixed = torch.tensor([[1, 4, 5], [4, 5, 6]])
        with pytest.raises(ValueError, match="row 1 has no BOS"):
            get_tokens_with_bos_removed(model.tokenizer, mixed)
