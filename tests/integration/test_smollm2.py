"""The real small model: SmolLM2-135M-Instruct against transformers, in every load mode and flag combination."""

import itertools

import pytest
import torch

from tests.fallback import may_fall_back
from transformer_lens import HookedTransformer
from transformer_lens.loading.versions import cache_argument, dtype_argument

PROMPT = "When Mary and John went to the store, John gave a drink to"
FLAGS = (
    "fold_ln",
    "center_writing_weights",
    "center_unembed",
    "fold_value_biases",
    "refactor_factored_attn_matrices",
)


@pytest.fixture(scope="module")
def theirs(smollm2):
    from transformers import AutoModelForCausalLM

    settings = {dtype_argument(): torch.float32, "attn_implementation": "eager"}
    return AutoModelForCausalLM.from_pretrained(smollm2, **settings).eval()


@pytest.fixture(scope="module")
def tokenizer(smollm2):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2)


@pytest.fixture(scope="module")
def expected(theirs, tokenizer):
    tokens = tokenizer(PROMPT, return_tensors="pt").input_ids
    with torch.no_grad():
        return tokens, theirs(tokens).logits


@pytest.mark.parametrize("load_mode", ["assign", "copy"])
@pytest.mark.parametrize("processed", [False, True], ids=["raw", "processed"])
@torch.no_grad()
def test_logits(smollm2, expected, load_mode, processed):
    tokens, logits = expected
    load = HookedTransformer.from_pretrained if processed else HookedTransformer.from_pretrained_no_processing
    with may_fall_back(load_mode):
        model = load(smollm2, load_mode=load_mode, device="cpu")
    ours = model(tokens)
    assert (ours.log_softmax(-1) - logits.log_softmax(-1)).abs().max() < 1e-4
    if not processed:
        assert (ours - logits).abs().max() < 1e-4


@pytest.mark.parametrize(
    "choice", list(itertools.product([False, True], repeat=5)), ids=lambda c: "".join("01"[f] for f in c)
)
@torch.no_grad()
def test_log_probs_under_every_flag_combination(smollm2, expected, choice):
    tokens, logits = expected
    model = HookedTransformer.from_pretrained(smollm2, device="cpu", **dict(zip(FLAGS, choice, strict=True)))
    assert (model(tokens).log_softmax(-1) - logits.log_softmax(-1)).abs().max() < 1e-4


@torch.no_grad()
def test_greedy_continuation(smollm2, theirs, expected):
    tokens, _ = expected
    model = HookedTransformer.from_pretrained_no_processing(smollm2, device="cpu")
    settings = {"max_new_tokens": 50, "do_sample": False, "stop_at_eos": False, "verbose": False}
    cached = model.generate(tokens, use_past_kv_cache=True, **settings)
    assert torch.equal(cached, model.generate(tokens, use_past_kv_cache=False, **settings))
    name = cache_argument(theirs.forward)
    reference, past = tokens, None
    for _ in range(50):
        out = theirs(reference if past is None else reference[:, -1:], use_cache=True, **{name: past})
        past = out[name]
        reference = torch.cat([reference, out.logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(cached, reference)


@torch.no_grad()
def test_batch_equals_one_by_one(smollm2):
    model = HookedTransformer.from_pretrained_no_processing(smollm2, device="cpu", default_padding_side="left")
    prompts = ["The capital of France is", "One, two, three, four, five, six, seven,", "Hi"]
    settings = {"max_new_tokens": 8, "do_sample": False, "stop_at_eos": False, "verbose": False, "prepend_bos": False}
    together = model.generate(prompts, padding_side="left", return_type="str", **settings)
    for prompt, text in zip(prompts, together, strict=True):
        alone = model.generate(prompt, return_type="str", **settings)
        assert text.endswith(alone[len(prompt) :]), (prompt, text, alone)


@torch.no_grad()
def test_tokenizer_beside_the_weights(smollm2, tokenizer):
    model = HookedTransformer.from_pretrained_no_processing(smollm2, device="cpu")
    assert model.tokenizer is not None
    plain = model.to_tokens(PROMPT, prepend_bos=False)
    # transformers 4 makes a tokenizer of a GGUF file that adds the first token by itself, 5 one that does not.
    words = tokenizer(PROMPT, add_special_tokens=False).input_ids
    assert plain[0].tolist() == words
    assert model.to_tokens(PROMPT, prepend_bos=True)[0].tolist() == [tokenizer.bos_token_id, *words]
    assert model.to_string(plain[0]) == PROMPT
    assert "".join(model.to_str_tokens(PROMPT, prepend_bos=False)) == PROMPT
    own = HookedTransformer.from_pretrained_no_processing(smollm2, device="cpu", tokenizer=tokenizer)
    assert own.tokenizer is tokenizer


@torch.no_grad()
def test_gguf_file_itself_loads(smollm2, smollm2_gguf):
    """The same weights, read from the GGUF file they came in."""
    folder = HookedTransformer.from_pretrained_no_processing(smollm2, device="cpu")
    gguf = HookedTransformer.from_pretrained_no_processing(smollm2_gguf, device="cpu")
    for (name, ours), (other, theirs) in zip(folder.named_parameters(), gguf.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(ours, theirs), name
