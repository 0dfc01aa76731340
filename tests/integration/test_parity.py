"""Every variant of every family against transformers on the same weights, and the tools against the model.

Every variant is loaded from a file raw by assigning, from a live model processed by copying, and in one other way that
is drawn from its name: each way to load is met by every family, and the suite does not grow with all combinations.
"""

import functools
import itertools
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fallback import may_fall_back
from tests.tiny_models import VARIANTS, family_of, make_model, save
from transformer_lens import HookedTransformer, anatomy

TOLERANCE = 1e-4
LENGTHS = (9, 40)
ALWAYS = (("file", "assign", False), ("live", "copy", True))
OTHERS = [way for way in itertools.product(("file", "live"), ("assign", "copy"), (False, True)) if way not in ALWAYS]


def ways(name: str) -> tuple[tuple[str, str, bool], ...]:
    """How a variant is loaded: (source, load_mode, processed)."""
    return (*ALWAYS, random.Random(name).choice(OTHERS))


def tokens_for(d_vocab: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(0, d_vocab, (2, length), generator=generator)


def log_probs(logits: torch.Tensor) -> torch.Tensor:
    return logits.float().log_softmax(-1)


@dataclass(frozen=True)
class Case:
    """One variant: transformers' model, and the folder of its file."""

    name: str
    hf_model: Any
    folder: Path

    @functools.cached_property
    def raw(self) -> HookedTransformer:
        """The model as it is in the file, for tests that leave it as it is."""
        return HookedTransformer.from_pretrained_no_processing(self.folder, device="cpu")

    @functools.cached_property
    def processed(self) -> HookedTransformer:
        """The processed model, likewise."""
        return HookedTransformer.from_pretrained(self.folder, device="cpu")

    @functools.cached_property
    def runs(self) -> list[Any]:
        """Logits and cache of the longer sequence: of the raw model, and of the processed one."""
        with torch.no_grad():
            return [model.run_with_cache(self.tokens(LENGTHS[1])) for model in (self.raw, self.processed)]

    def tokens(self, length: int) -> torch.Tensor:
        return tokens_for(self.raw.cfg.d_vocab, length)


@pytest.fixture(scope="module", params=sorted(VARIANTS))
def case(request, tmp_path_factory):
    variant = VARIANTS[request.param]
    if (reason := variant.why_no_reference()) is not None:
        pytest.skip(reason)
    return Case(request.param, make_model(variant), save(variant, tmp_path_factory.mktemp(request.param)))


BOTH = pytest.mark.parametrize("processed", [False, True], ids=["raw", "processed"])


def load(case, source: str, load_mode: str, processed: bool) -> HookedTransformer:
    method = HookedTransformer.from_pretrained if processed else HookedTransformer.from_pretrained_no_processing
    with may_fall_back(load_mode):
        if source == "file":
            return method(case.folder, load_mode=load_mode, device="cpu")
        return method(hf_model=case.hf_model, load_mode=load_mode, device="cpu")


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = TOLERANCE) -> None:
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(actual, expected, atol=tolerance * scale, rtol=0)


def test_every_family_is_loaded_in_every_way():
    met: dict[str, set] = {}
    for name, variant in VARIANTS.items():
        met.setdefault(family_of(variant), set()).update(itertools.chain(*ways(name)))
    assert all(values == {"file", "live", "assign", "copy", False, True} for values in met.values())
    assert set(itertools.chain(*map(ways, VARIANTS))) == {*ALWAYS, *OTHERS}


@pytest.mark.parametrize("way", range(len(ALWAYS) + 1))
@torch.no_grad()
def test_log_probs_equal_transformers(case, way):
    source, load_mode, processed = ways(case.name)[way]
    model = load(case, source, load_mode, processed)
    for length in LENGTHS:
        tokens = case.tokens(length)
        theirs = case.hf_model(tokens).logits
        ours = model(tokens, prepend_bos=False)
        assert (log_probs(ours) - log_probs(theirs)).abs().max() < TOLERANCE
        if not processed:
            assert torch.allclose(ours, theirs, atol=TOLERANCE, rtol=1e-4)


@torch.no_grad()
def test_a_file_in_bfloat16_is_read_unrounded(case, tmp_path):
    """Whatever is derived or folded on load is computed of the file's numbers, not rounded to the file's dtype."""
    variant = VARIANTS[case.name]
    save(variant, tmp_path, torch.bfloat16)
    hf_model = make_model(variant)
    for tensor in hf_model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.bfloat16())
    processed = random.Random(f"{case.name} in bfloat16").random() < 0.5
    load = HookedTransformer.from_pretrained if processed else HookedTransformer.from_pretrained_no_processing
    model = load(tmp_path, device="cpu", dtype="float32")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    tokens = case.tokens(LENGTHS[1])
    assert (log_probs(model(tokens)) - log_probs(hf_model(tokens).logits)).abs().max() < TOLERANCE


@torch.no_grad()
def test_hidden_states_after_every_block(case):
    theirs = case.hf_model(case.tokens(LENGTHS[1]), output_hidden_states=True).hidden_states
    model, (_, cache) = case.raw, case.runs[0]
    for layer in range(model.cfg.n_layers):
        close(cache["resid_pre", layer], theirs[layer])
    # transformers' last hidden state is behind the final norm; without one it may be behind a projection.
    if anatomy.final_norm_of(model.cfg) is not None:
        close(model.ln_final(cache["resid_post", -1]), theirs[-1])


def test_gradients_at_the_stream(case):
    """Of one number of the output, at the stream before every block."""
    tokens = case.tokens(LENGTHS[0])
    theirs = case.hf_model(tokens, output_hidden_states=True)
    streams = theirs.hidden_states[: case.raw.cfg.n_layers]
    expected = torch.autograd.grad(log_probs(theirs.logits)[..., 7].sum(), streams)
    found = {}
    hooks = [
        (f"blocks.{layer}.hook_resid_pre", lambda gradient, hook: found.update({hook.layer(): gradient.clone()}))
        for layer in range(case.raw.cfg.n_layers)
    ]
    with case.raw.hooks(bwd_hooks=hooks):
        log_probs(case.raw(tokens, prepend_bos=False))[..., 7].sum().backward()
    case.raw.zero_grad()
    for layer, gradient in enumerate(expected):
        close(found[layer], gradient)


def test_the_config_counts_the_matrices_of_blocks(case):
    matrices = (
        parameter.numel()
        for name, parameter in case.raw.named_parameters()
        if name.startswith("blocks.") and ("W_" in name.rpartition(".")[2] or name.endswith(".weight"))
    )
    assert case.raw.cfg.n_params == sum(matrices)


@BOTH
@torch.no_grad()
def test_block_invariants(case, processed):
    """The sums and products that a cosine similarity would hide, as the records of the layers say them."""
    model, (_, cache) = (case.raw, case.processed)[processed], case.runs[processed]
    cache.compute_head_results()
    for record in anatomy.layers(model.cfg):
        layer, block = record.index, model.blocks[record.index]

        def written(out, branch, block=block):
            out = out if branch.writes is None else getattr(block, branch.writes.name)(out)
            return out * branch.multiplier

        def closed(stream, branch, block=block):
            return stream if branch.closes is None else getattr(block, branch.closes.name)(stream)

        stream = closed(cache["resid_pre", layer] + cache["attn_out", layer], record.attention)
        if record.has_middle:
            close(stream, cache["resid_mid", layer])
        if record.mlp is not None:
            stream = closed(stream + cache["mlp_out", layer], record.mlp)
            if record.mlp.writes_by_one_matrix:
                out = cache["post", layer] @ block.mlp.W_out + block.mlp.b_out
                close(written(out, record.mlp), cache["mlp_out", layer])
        close(stream, cache["resid_post", layer])
        pattern, v, z = cache["pattern", layer], cache["v", layer], cache["z", layer]
        v = v.repeat_interleave(record.attends.n_heads // v.shape[2], dim=2)
        close(torch.einsum("bhqk,bkhd->bqhd", pattern, v), z)
        if record.attends.has_sinks:
            # The sink takes the rest.
            assert (pattern.sum(-1) < 1 + 1e-6).all() and (pattern.sum(-1) < 0.99).any()
        else:
            close(pattern.sum(-1), torch.ones(pattern.shape[:-1]))
        out = cache["result", layer].sum(2) + block.attn.b_O
        close(written(out, record.attention), cache["attn_out", layer])


@BOTH
@torch.no_grad()
def test_decompositions_sum_to_the_stream(case, processed):
    _, cache = case.runs[processed]
    for layer in (1, -1):
        stream = cache["resid_pre", 1] if layer == 1 else cache["resid_post", -1]
        close(cache.decompose_resid(layer).sum(0), stream)
        close(cache.get_full_resid_decomposition(layer).sum(0), stream)


@torch.no_grad()
def test_attributions_sum_to_logits(case):
    model, (logits, cache) = case.processed, case.runs[1]
    answers = case.tokens(LENGTHS[1]).flip(-1)
    record = anatomy.model_of(model.cfg)
    assert record.final_norm is None or not record.final_norm.parameters()
    total = cache.logit_attrs(cache.get_full_resid_decomposition(), answers).sum(0)
    total = total + record.unembedding.multiplier * model.b_U[answers]
    if not record.unembedding.is_linear:
        total = record.unembedding.softcap * (total / record.unembedding.softcap).tanh()
    close(total, logits.gather(-1, answers[..., None])[..., 0])


@torch.no_grad()
def test_the_embedding_is_what_the_stream_begins_with(case):
    model, (_, cache) = case.raw, case.runs[0]
    if anatomy.embedding_of(model.cfg).norm is None:
        assert torch.equal(model.W_E[case.tokens(LENGTHS[1])], cache["hook_embed"])


@torch.no_grad()
def test_processing_in_place(case):
    model = load(case, "file", "copy", processed=False)
    kept = dict(model.named_parameters())
    model.process_weights_()
    tokens = case.tokens(LENGTHS[0])
    assert (log_probs(model(tokens)) - log_probs(case.raw(tokens))).abs().max() < TOLERANCE
    assert all(parameter is kept[name] for name, parameter in model.named_parameters() if name in kept)
    expected = dict(case.processed.named_parameters())
    assert expected.keys() == dict(model.named_parameters()).keys()


@torch.no_grad()
def test_switches_leave_log_probs(case):
    """What is computed for hooks to see changes nothing of the result."""
    model = load(case, "file", "auto", processed=True)
    tokens = case.tokens(LENGTHS[0])
    before = log_probs(case.processed(tokens))
    switches = ["use_attn_result", "use_split_qkv_input", "use_hook_mlp_in", "ungroup_grouped_query_attention"]
    if not anatomy.layer_of(model.cfg, 0).attends.is_grouped:
        switches.append("use_attn_in")
    for switch in switches:
        set_it = getattr(model, f"set_{switch}")
        set_it(True)
        _, cache = model.run_with_cache(tokens)
        assert (log_probs(model(tokens)) - before).abs().max() < TOLERANCE, switch
        if switch != "use_attn_result":
            set_it(False)
    # Split inputs stay on together with results: a hook sees every head's own.
    model.set_use_split_qkv_input(True)
    logits, cache = model.run_with_cache(tokens)
    assert (log_probs(logits) - before).abs().max() < TOLERANCE
    assert cache["result", 0].shape == cache["q_input", 0].shape


@torch.no_grad()
def test_padding_on_the_left_changes_nothing(case):
    model, tokens = case.raw, case.tokens(LENGTHS[0])
    padding = torch.zeros(2, 3, dtype=torch.int64)
    mask = torch.cat([padding, torch.ones_like(tokens)], dim=1)
    logits = model(torch.cat([padding, tokens], dim=1), attention_mask=mask, prepend_bos=False, padding_side="left")
    close(logits[:, 3:], model(tokens, prepend_bos=False))


@torch.no_grad()
def test_cached_decoding_equals_one_pass(case):
    """Greedy continuation with a key-value cache, beyond every window."""
    settings = {"max_new_tokens": 12, "do_sample": False, "stop_at_eos": False, "verbose": False}
    model = case.raw
    rotaries = [record.attends.rotary for record in anatomy.layers(model.cfg)]
    if any(rotary is not None and rotary.depends_on_length for rotary in rotaries):
        # Beyond the threshold one pass turns early positions by other angles than the passes before it did.
        tokens = case.tokens(7)
    else:
        tokens = case.tokens(22)
    found = model.generate(tokens, use_past_kv_cache=True, **settings)
    length = tokens.shape[1]
    assert torch.equal(model(found[:, :-1], prepend_bos=False).argmax(-1)[:, length - 1 :], found[:, length:])


@torch.no_grad()
def test_its_own_state_dict_makes_the_same_model(case):
    for model in (case.raw, case.processed):
        again = HookedTransformer.from_state_dict(model.state_dict(), model.cfg)
        tokens = case.tokens(LENGTHS[0])
        assert all(torch.equal(p, model.get_parameter(name)) for name, p in again.named_parameters())
        close(again(tokens), model(tokens), 1e-5)
        assert again.state_dict().keys() == model.state_dict().keys()


@torch.no_grad()
def test_the_first_layers_are_those_of_the_model(case):
    whole, (_, cache) = case.raw, case.runs[0]
    count = whole.cfg.n_layers - 1
    model = HookedTransformer.from_pretrained_no_processing(case.folder, device="cpu", first_n_layers=count)
    assert len(model.blocks) == count
    assert anatomy.layers(model.cfg) == anatomy.layers(whole.cfg)[:count]
    close(model.run_with_cache(case.tokens(LENGTHS[1]))[1]["resid_post", -1], cache["resid_post", count - 1])
