"""Every variant of every family against transformers on the same weights, in every way to load it."""

import pytest
import torch

from tests.fallback import may_fall_back
from tests.tiny_models import VARIANTS, make_model, save
from transformer_lens import HookedTransformer

TOLERANCE = 1e-4
LENGTHS = (9, 40)


def tokens_for(d_vocab: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(0, d_vocab, (2, length), generator=generator)


def log_probs(logits: torch.Tensor) -> torch.Tensor:
    return logits.float().log_softmax(-1)


@pytest.fixture(scope="module", params=sorted(VARIANTS))
def case(request, tmp_path_factory):
    variant = VARIANTS[request.param]
    if (reason := variant.why_no_reference()) is not None:
        pytest.skip(reason)
    hf_model = make_model(variant)
    folder = tmp_path_factory.mktemp(request.param)
    save(variant, folder)
    return hf_model, folder


def load(case, source: str, load_mode: str, processed: bool) -> HookedTransformer:
    hf_model, folder = case
    method = HookedTransformer.from_pretrained if processed else HookedTransformer.from_pretrained_no_processing
    with may_fall_back(load_mode):
        if source == "file":
            return method(folder, load_mode=load_mode, device="cpu")
        return method(hf_model=hf_model, load_mode=load_mode, device="cpu")


@pytest.mark.parametrize("processed", [False, True], ids=["raw", "processed"])
@pytest.mark.parametrize("load_mode", ["assign", "copy"])
@pytest.mark.parametrize("source", ["file", "live"])
@torch.no_grad()
def test_log_probs_equal_transformers(case, source, load_mode, processed):
    hf_model, _ = case
    model = load(case, source, load_mode, processed)
    for length in LENGTHS:
        tokens = tokens_for(model.cfg.d_vocab, length)
        theirs = hf_model(tokens).logits
        ours = model(tokens, prepend_bos=False)
        assert (log_probs(ours) - log_probs(theirs)).abs().max() < TOLERANCE
        if not processed:
            assert torch.allclose(ours, theirs, atol=TOLERANCE, rtol=1e-4)


@torch.no_grad()
def test_hidden_states_after_every_block(case):
    hf_model, _ = case
    model = load(case, "file", "auto", processed=False)
    tokens = tokens_for(model.cfg.d_vocab, LENGTHS[1])
    theirs = hf_model(tokens, output_hidden_states=True).hidden_states
    _, cache = model.run_with_cache(tokens)
    for layer in range(model.cfg.n_layers):
        assert torch.allclose(cache["resid_pre", layer], theirs[layer], atol=TOLERANCE, rtol=1e-4), layer
    # transformers' last hidden state is behind the final norm.
    final = model.ln_final(cache["resid_post", -1])
    assert torch.allclose(final, theirs[-1], atol=TOLERANCE, rtol=1e-4)


@pytest.mark.parametrize("processed", [False, True], ids=["raw", "processed"])
@torch.no_grad()
def test_block_invariants(case, processed):
    """The sums and products that a cosine similarity would hide."""
    model = load(case, "file", "auto", processed)
    model.set_use_attn_result(True)
    cfg = model.cfg
    tokens = tokens_for(cfg.d_vocab, LENGTHS[1])
    _, cache = model.run_with_cache(tokens)
    for layer in range(cfg.n_layers):
        block = model.blocks[layer]
        total = cache["resid_pre", layer] + cache["attn_out", layer] + cache["mlp_out", layer]
        assert torch.allclose(total, cache["resid_post", layer], atol=1e-4, rtol=1e-4)
        if not cfg.parallel_attn_mlp:
            assert torch.allclose(
                cache["resid_pre", layer] + cache["attn_out", layer], cache["resid_mid", layer], atol=1e-5, rtol=1e-5
            )
        pattern, v, z = cache["pattern", layer], cache["v", layer], cache["z", layer]
        v = v.repeat_interleave(cfg.n_heads // v.shape[2], dim=2)
        assert torch.allclose(torch.einsum("bhqk,bkhd->bqhd", pattern, v), z, atol=1e-4, rtol=1e-4)
        assert torch.allclose(pattern.sum(-1), torch.ones(()), atol=1e-5)
        assert torch.allclose(
            cache["result", layer].sum(2) + block.attn.b_O, cache["attn_out", layer], atol=1e-4, rtol=1e-4
        )
        out = cache["post", layer] @ block.mlp.W_out + block.mlp.b_out
        assert torch.allclose(out, cache["mlp_out", layer], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_cached_decoding_equals_one_pass(case):
    """Greedy continuation is the same with and without a key-value cache, also across a rotary threshold."""
    model = load(case, "file", "auto", processed=False)
    tokens = tokens_for(model.cfg.d_vocab, 7)
    settings = {"max_new_tokens": 20, "do_sample": False, "stop_at_eos": False, "verbose": False}
    with_cache = model.generate(tokens, use_past_kv_cache=True, **settings)
    without = model.generate(tokens, use_past_kv_cache=False, **settings)
    assert torch.equal(with_cache, without)
