"""The forward pass: what it returns, from where to where it runs, and what padding and a cache do to it."""

import gc
import weakref

import pytest
import torch

from tests.unit.small_transformers import KINDS, make_model, make_tokenizer, make_tokens
from transformer_lens.ActivationCache import ActivationCache
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.HookedTransformer import HookedTransformer, Loss, Output

CLOSE = {"atol": 2e-5, "rtol": 1e-4}
EVERY_KIND = pytest.mark.parametrize("kind", sorted(KINDS))


def test_types_can_be_joined_at_import():
    assert (Output | Loss | None) is not None


@EVERY_KIND
def test_return_types_agree(kind):
    model, tokens = make_model(kind), make_tokens()
    logits = model(tokens)
    assert logits.shape == (4, 7, model.cfg.d_vocab_out)
    both = model(tokens, return_type="both", loss_per_token=True)
    assert isinstance(both, Output) and torch.equal(both.logits, logits)
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")
    torch.testing.assert_close(both.loss, expected, **CLOSE)
    torch.testing.assert_close(model(tokens, return_type="loss"), expected.mean(), **CLOSE)
    assert model(tokens, return_type=None) is None


def test_an_unknown_return_type_is_refused_before_anything_runs():
    model = make_model()
    model.add_hook("hook_embed", lambda value, hook: pytest.fail("ran"))
    with pytest.raises(ValueError, match="'logits', 'loss'"):
        model(make_tokens(), return_type="logit")


@EVERY_KIND
@pytest.mark.parametrize("layer", [0, 1, -1, 3])
def test_two_parts_are_the_whole(kind, layer):
    model, tokens = make_model(kind), make_tokens()
    residual, names = model(tokens, stop_at_layer=layer), []
    assert residual.shape == (4, 7, 14)
    shortformer = model.input_to_embed(tokens)[2]
    model.add_hook(lambda name: name.endswith("resid_pre"), lambda value, hook: names.append(hook.layer()))
    start = layer if layer != 3 else 3
    logits = model(residual, start_at_layer=start, shortformer_pos_embed=shortformer)
    assert names == list(range(3))[start:]
    model.reset_hooks()
    torch.testing.assert_close(logits, model(tokens), **CLOSE)
    loss = model(residual, start_at_layer=start, shortformer_pos_embed=shortformer, return_type="loss", tokens=tokens)
    torch.testing.assert_close(loss, model(tokens, return_type="loss"), **CLOSE)


def test_start_at_layer_says_what_it_needs():
    model = make_model()
    with pytest.raises(ValueError, match="tokens="):
        model(torch.zeros(2, 5, 14), start_at_layer=1, return_type="loss")
    with pytest.raises(ValueError, match="residual stream"):
        model(make_tokens(), start_at_layer=1)


def test_tokens_without_a_batch_axis_get_one():
    model, tokens = make_model(), make_tokens()
    assert torch.allclose(model(tokens[1]), model(tokens[1:2]))
    assert model(tokens[1], return_type="loss", loss_per_token=True).shape == (1, 6)
    assert torch.allclose(model(tokens.int()), model(tokens))
    assert model.run_with_hooks(tokens[0], fwd_hooks=[]).shape[0] == 1


def test_text_needs_a_tokenizer():
    with pytest.raises(ValueError, match="tokenizer"):
        make_model()("a b")
    with pytest.raises(AssertionError):  # as in earlier releases
        make_model()("a b")


@EVERY_KIND
def test_padding_changes_nothing_for_the_tokens(kind):
    model, tokens = make_model(kind), make_tokens(batch=1, length=5)
    alone = model(tokens)
    left = torch.cat([torch.zeros(1, 3, dtype=torch.long), tokens], dim=1)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]])
    for given in (mask, mask.bool()):
        torch.testing.assert_close(model(left, attention_mask=given)[:, 3:], alone, **CLOSE)
    torch.testing.assert_close(model(left.flip(1), attention_mask=mask.flip(1))[:, :5], model(tokens.flip(1)), **CLOSE)
    ours = model(left, attention_mask=mask, return_type="loss")
    torch.testing.assert_close(ours, model(tokens, return_type="loss"), **CLOSE)


def test_padding_on_the_left_is_found_with_the_tokenizer():
    model = make_model(tokenizer=make_tokenizer())
    texts = ["a b c d", "e f", "g"]
    together = model(texts, padding_side="left")
    for row, text in enumerate(texts):
        alone = model(text)[0]
        torch.testing.assert_close(together[row, -len(alone) :], alone, **CLOSE)
    assert model.tokenizer.padding_side == "right"


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(Exception, match=r"attention_mask|Type-check"):
        make_model()(make_tokens(), attention_mask=torch.ones(4, 3, dtype=torch.long))


@EVERY_KIND
def test_a_cache_changes_nothing(kind):
    model, tokens = make_model(kind), make_tokens()
    mask = torch.ones_like(tokens)
    mask[0, :2] = 0
    for given in (None, mask):
        cache, parts = TransformerLensKeyValueCache.init_cache(model.cfg, "cpu", 4), []
        for start, stop in ((0, 3), (3, 4), (4, 7)):
            part_of_mask = None if given is None else given[:, start:stop]
            parts.append(model(tokens[:, start:stop], past_kv_cache=cache, attention_mask=part_of_mask))
        whole = model(tokens, attention_mask=given)
        real = mask.bool() if given is not None else torch.ones_like(mask).bool()
        torch.testing.assert_close(torch.cat(parts, dim=1)[real], whole[real], **CLOSE)


def test_a_frozen_cache_is_read_only():
    model, tokens = make_model(), make_tokens()
    cache = TransformerLensKeyValueCache.init_cache(model.cfg, "cpu", 4)
    model(tokens[:, :4], past_kv_cache=cache)
    cache.freeze()
    first = model(tokens[:, 4:], past_kv_cache=cache)
    second, stored = model.run_with_cache(tokens[:, 4:], past_kv_cache=cache)
    torch.testing.assert_close(first, second, **CLOSE)
    assert cache[0].past_keys.shape[1] == 4
    assert stored["pattern", 0].shape[-2:] == (3, 7)
    loss = model(tokens[:, 4:], past_kv_cache=cache, return_type="loss")
    torch.testing.assert_close(loss, model.loss_fn(first, tokens[:, 4:]), **CLOSE)
    with pytest.raises(ValueError, match="rows"):
        model(tokens[:2], past_kv_cache=cache)


@EVERY_KIND
def test_activations_add_up(kind):
    model = make_model(kind)
    _, cache = model.run_with_cache(make_tokens())
    assert isinstance(cache, ActivationCache)
    for layer in range(3):
        total = cache["resid_pre", layer] + cache["attn_out", layer]
        if not model.cfg.attn_only:
            total = total + cache["mlp_out", layer]
        torch.testing.assert_close(total, cache["resid_post", layer], **CLOSE)


def test_run_with_cache_passes_on_its_arguments():
    model, tokens = make_model(), make_tokens()
    residual, cache = model.run_with_cache(tokens, names_filter=["blocks.0.hook_resid_post"], stop_at_layer=1)
    assert list(cache) == ["blocks.0.hook_resid_post"] and torch.equal(cache["resid_post", 0], residual)
    logits, activations = model.run_with_cache(tokens[:1], return_cache_object=False, remove_batch_dim=True)
    assert type(activations) is dict and activations["hook_embed"].shape == (7, 14)
    torch.testing.assert_close(logits, model(tokens[:1]), **CLOSE)
    _, both_ways = model.run_with_cache(tokens, return_type="loss", incl_bwd=True)
    assert both_ways["blocks.0.hook_resid_pre_grad"].shape == (4, 7, 14)


def test_a_soft_cap_is_read_at_the_time_of_the_run():
    model, tokens = make_model("soft_caps"), make_tokens()
    capped = model(tokens)
    for off in (0.0, -1.0):
        model.cfg.output_logits_soft_cap = off
        torch.testing.assert_close(2 * torch.tanh(model(tokens) / 2), capped, **CLOSE)


def test_switches_may_be_set_on_the_config():
    model, tokens = make_model(), make_tokens()
    model.cfg.use_attn_result = True
    _, cache = model.run_with_cache(tokens)
    torch.testing.assert_close(cache["result", 0].sum(2) + model.blocks[0].attn.b_O, cache["attn_out", 0], **CLOSE)


def test_a_model_is_freed_at_once():
    gc.collect()
    gc.disable()
    try:
        model = make_model(tokenizer=make_tokenizer())
        model.run_with_cache(make_tokens())
        model.generate("a b", max_new_tokens=2, verbose=False)
        held = [weakref.ref(model), weakref.ref(model.embed.W_E), weakref.ref(model.blocks[1].attn.W_Q)]
        del model
        assert [reference() for reference in held] == [None, None, None]
    finally:
        gc.enable()


def test_a_config_can_be_a_dict_but_not_a_name():
    model = HookedTransformer({"n_layers": 1, "d_model": 6, "n_ctx": 5, "d_head": 3, "d_vocab": 7, "act_fn": "relu"})
    assert model(torch.tensor([[1, 2]])).shape == (1, 2, 7)
    with pytest.raises(Exception, match="from_pretrained|Type-check"):
        HookedTransformer("gpt2")
    with pytest.raises(ValueError, match="d_vocab"):
        HookedTransformer({"n_layers": 1, "d_model": 6, "n_ctx": 5, "d_head": 3, "act_fn": "relu"})
