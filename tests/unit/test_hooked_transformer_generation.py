"""Generation."""

import pytest
import torch

from tests.unit.small_transformers import KINDS, make_model, make_tokenizer, make_tokens

TEXTS = ["a b c d e", "f", "g h"]
QUIET = {"verbose": False, "do_sample": False}
EVERY_KIND = pytest.mark.parametrize("kind", sorted(KINDS))


@EVERY_KIND
def test_greedy_tokens_are_the_likeliest_one_after_another(kind):
    model, tokens = make_model(kind), make_tokens(batch=3, length=5)
    known = tokens
    for _ in range(9):
        known = torch.cat([known, model(known)[:, -1:].argmax(-1)], dim=1)
    for use_past_kv_cache in (True, False):
        ours = model.generate(tokens, 9, stop_at_eos=False, use_past_kv_cache=use_past_kv_cache, **QUIET)
        assert torch.equal(ours, known)
    embeds = model.embed(tokens)
    for use_past_kv_cache in (True, False):
        arguments = {"stop_at_eos": False, "use_past_kv_cache": use_past_kv_cache, **QUIET}
        assert torch.equal(model.generate(embeds, 9, return_type="tokens", **arguments), known[:, 5:])
        torch.testing.assert_close(model.generate(embeds, 9, **arguments), model.embed(known))


@EVERY_KIND
@pytest.mark.parametrize("padding_side", [None, "left", "right"])
@pytest.mark.parametrize("use_past_kv_cache", [True, False])
def test_a_batch_is_continued_as_its_rows_are_alone(kind, padding_side, use_past_kv_cache):
    d_vocab = {"d_vocab": 29} if kind == "square" else {}
    model = make_model(kind, tokenizer=make_tokenizer(), **d_vocab)
    arguments = {"padding_side": padding_side, "use_past_kv_cache": use_past_kv_cache, **QUIET}
    alone = [model.generate(text, max_new_tokens=8, **arguments) for text in TEXTS]
    assert model.generate(TEXTS, max_new_tokens=8, **arguments) == alone
    padded = model.to_tokens(TEXTS, padding_side=padding_side)
    tokens = model.generate(padded, max_new_tokens=8, **arguments)
    assert torch.equal(tokens[:, : padded.shape[1]], padded)
    assert model.generate(padded, max_new_tokens=8, return_type="str", **arguments) == alone


def test_a_padding_token_that_is_also_bos_and_eos_is_told_apart():
    model = make_model(tokenizer=make_tokenizer(special=False, eos_token="<eos>"))
    for prepend_bos in (True, False):
        for padding_side in ("left", "right"):
            arguments = {"prepend_bos": prepend_bos, "padding_side": padding_side, "stop_at_eos": False, **QUIET}
            alone = [model.generate(text, max_new_tokens=6, **arguments) for text in TEXTS]
            assert model.generate(TEXTS, max_new_tokens=6, **arguments) == alone
            padded = model.to_tokens(TEXTS, prepend_bos=prepend_bos, padding_side=padding_side)
            assert model.generate(padded, max_new_tokens=6, return_type="str", **arguments) == alone


def test_a_row_stops_at_eos_and_is_filled_up():
    model, tokens = make_model(), make_tokens(batch=5, length=4, d_vocab=29)
    free = model.generate(tokens, 12, stop_at_eos=False, **QUIET)[:, 4:]
    eos = int(free[0, 2])
    stopped = model.generate(tokens, 12, eos_token_id=eos, **QUIET)[:, 4:]
    for ours, theirs in zip(stopped.tolist(), free.tolist(), strict=True):
        end = theirs.index(eos) if eos in theirs else len(theirs)
        assert ours == (theirs[:end] + [eos] * 12)[: len(ours)]
    alone = model.generate(tokens[:1], 12, eos_token_id=[eos, 99], **QUIET)
    assert alone.shape[1] == 4 + free[0].tolist().index(eos) + 1
    several = [int(free[0, 1]), int(free[1, 1])]
    ends = model.generate(tokens[:2], 12, eos_token_id=several, **QUIET)
    assert ends.shape[1] <= 4 + 2


def test_stopping_needs_to_know_eos():
    model = make_model()
    with pytest.raises(ValueError, match="eos_token_id"):
        model.generate(make_tokens(), **QUIET)
    with pytest.raises(ValueError, match="tokenizer"):
        model.generate("a", **QUIET)
    assert model.generate(make_tokens(), 2, eos_token_id=99, **QUIET).shape == (4, 9)
    with pytest.raises(ValueError, match="return_type"):
        model.generate(make_tokens(), return_type="text", stop_at_eos=False)
    with pytest.raises(ValueError, match="n_ctx"):
        model.generate(make_tokens(), 30, stop_at_eos=False, **QUIET)


def test_what_is_returned():
    model = make_model(tokenizer=make_tokenizer())
    tokens = model.to_tokens("a b")
    arguments = {"max_new_tokens": 3, "stop_at_eos": False, **QUIET}
    generated = model.generate("a b", return_type="tokens", **arguments)
    assert generated.shape == (1, 6) and torch.equal(generated, model.generate(tokens, **arguments))
    text = model.tokenizer.decode(generated[0], skip_special_tokens=True)
    assert model.generate("a b", **arguments) == model.generate(tokens, return_type="str", **arguments) == text
    assert model.generate(["a b"], **arguments) == text
    assert model.generate(["a b", "a b"], **arguments) == [text, text]
    assert torch.equal(model.generate("a b", return_type="embeds", **arguments), model.embed(generated))
    assert model.generate("a b", max_new_tokens=0) == "ab"
    assert not generated.requires_grad and not generated.is_inference()
    output = model.generate("a b", output_logits=True, **arguments)
    assert torch.equal(output.sequences, generated) and len(output.logits) == 3
    torch.testing.assert_close(torch.stack(output.logits, 1), model(generated[:, :-1])[:, 2:], atol=2e-5, rtol=1e-4)
    assert model.generate("a b", return_dict_in_generate=True, **arguments).logits is None
    with pytest.raises(ValueError, match="nothing to continue"):
        model.generate("", prepend_bos=False)


def test_sampling_follows_the_probabilities():
    model = make_model(tokenizer=make_tokenizer(), std=0.1)
    with torch.no_grad():
        model.unembed.W_U.mul_(0.4)
    tokens = torch.tensor([[1, 4, 5]]).repeat(4000, 1)
    probabilities = (model(tokens[:1])[0, -1] / 0.7).softmax(-1)
    torch.manual_seed(0)
    drawn = model.generate(tokens, 1, temperature=0.7, stop_at_eos=False, verbose=False)[:, -1]
    frequencies = torch.bincount(drawn, minlength=29) / len(drawn)
    assert (frequencies - probabilities).abs().max() < 0.04
    top = probabilities.topk(3).indices.tolist()
    drawn = model.generate(tokens, 1, top_k=3, temperature=0.7, stop_at_eos=False, verbose=False)[:, -1]
    assert set(drawn.tolist()) == set(top)
    drawn = model.generate(tokens, 1, top_p=1e-4, stop_at_eos=False, verbose=False)[:, -1]
    assert set(drawn.tolist()) == {top[0]}
    drawn = model.generate(tokens, 1, temperature=0.0, stop_at_eos=False, verbose=False)[:, -1]
    assert set(drawn.tolist()) == {top[0]}


def test_a_frequency_penalty_does_not_count_padding():
    model = make_model(tokenizer=make_tokenizer(special=False, eos_token="<eos>"))
    with torch.no_grad():
        model.unembed.b_U.zero_()
        model.unembed.b_U[2] = 30.0
        model.unembed.b_U[7] = 20.0
    sampled = model.generate(
        ["a b c d e f", "a"], 1, freq_penalty=4.0, stop_at_eos=False, verbose=False, return_type="tokens"
    )
    assert sampled[:, -1].tolist() == [2, 2]
    sampled = model.generate("a", 3, freq_penalty=200.0, stop_at_eos=False, verbose=False, return_type="tokens")
    assert len(set(sampled[0].tolist())) == 5


def test_a_stream_has_the_same_parts():
    model = make_model(tokenizer=make_tokenizer())
    tokens = make_tokens(batch=2, length=5)
    arguments = {"max_new_tokens": 7, "stop_at_eos": False, **QUIET}
    parts = list(model.generate_stream(tokens, max_tokens_per_yield=3, **arguments))
    assert [part.shape[1] for part in parts] == [6, 3, 3]
    assert torch.equal(torch.cat(parts, dim=1), model.generate(tokens, **arguments))
    texts = list(model.generate_stream("a b", max_tokens_per_yield=2, **arguments))
    assert len(texts) > 2 and "".join(texts) == model.generate("a b", **arguments)
    with pytest.raises(ValueError, match="single row"):
        next(model.generate_stream(tokens, return_type="str", **arguments))
    stream = model.generate_stream(tokens, max_tokens_per_yield=1, **arguments)
    with torch.enable_grad():
        next(stream)
        assert torch.is_grad_enabled()


def test_training_mode_is_given_back():
    model = make_model()
    model.blocks[1].eval()
    modes = []
    model.add_hook("hook_embed", lambda value, hook: modes.append(model.training))
    model.generate(make_tokens(), 2, stop_at_eos=False, **QUIET)
    assert modes == [False, False]
    assert model.training and model.blocks[0].attn.training and not model.blocks[1].attn.training


def test_hooks_may_come_and_go_while_it_runs():
    model, seen = make_model(), []

    def once(value, hook):
        seen.append(hook.name)
        model.reset_hooks()
        model.add_hook("blocks.1.hook_resid_post", lambda value, hook: seen.append(hook.name))

    model.add_hook("blocks.0.hook_resid_pre", once)
    model.generate(make_tokens(), 3, stop_at_eos=False, **QUIET)
    assert seen == ["blocks.0.hook_resid_pre"] + ["blocks.1.hook_resid_post"] * 3


def test_what_transformers_would_take_is_named_in_a_warning():
    model, tokens = make_model(), make_tokens(batch=1, length=5)
    arguments = {"stop_at_eos": False, **QUIET}
    with pytest.warns(UserWarning, match="without num_beams, length_penalty"):
        found = model.generate(tokens, 3, num_beams=4, length_penalty=2.0, **arguments)
    assert torch.equal(found, model.generate(tokens, 3, **arguments))
