"""What the records say of a block, against what its modules compute: every kind of block, in float64."""

from collections import Counter

import pytest
import torch

from tests.unit.anatomy.kinds import KINDS, make
from tests.unit.small_transformers import make_tokens
from transformer_lens import HookedTransformer, anatomy
from transformer_lens.loading.processing import Flags, plan

EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
ALL = dict.fromkeys(
    ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases", "refactor_factored_attn_matrices"),
    True,
)
EXACT = 1e-12


def close(actual, expected, tolerance=EXACT):
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(actual, expected, atol=tolerance * scale, rtol=0)


def log_probs(model):
    return model(make_tokens()).log_softmax(-1)


def assert_parameters_are_the_schemas(model):
    sizes = anatomy.axis_sizes(model.cfg)
    expected = {name: tuple(sizes[axis] for axis in axes.split()) for name, axes in anatomy.schema(model.cfg).items()}
    found = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert found == expected


@EVERY_KIND
@torch.no_grad()
def test_parameters_are_the_schemas(kind):
    model = make(kind)
    assert_parameters_are_the_schemas(model)
    for record, block in zip(anatomy.layers(model.cfg), model.blocks):
        assert record == block.anatomy


@EVERY_KIND
@pytest.mark.parametrize("flags", [{}, ALL], ids=["default", "all"])
@torch.no_grad()
def test_processing_in_place_leaves_log_probs(kind, flags):
    model = make(kind)
    before = log_probs(model)
    # What cannot be done at all for a kind is left out, not refused.
    model.process_weights_(**flags)
    close(log_probs(model), before)
    assert_parameters_are_the_schemas(model)
    again = HookedTransformer.from_state_dict(model.state_dict(), model.cfg)
    close(log_probs(again), before)


@EVERY_KIND
@pytest.mark.parametrize("processed", [False, True], ids=["raw", "processed"])
@torch.no_grad()
def test_decompositions_sum_to_the_stream(kind, processed):
    model = make(kind)
    if processed:
        model.process_weights_()
    _, cache = model.run_with_cache(make_tokens())
    for layer in range(1, model.cfg.n_layers + 1):
        record = anatomy.layer_of(model.cfg, min(layer, model.cfg.n_layers - 1))
        ends = layer == model.cfg.n_layers
        streams = {False: cache["resid_post", layer - 1]}
        if not ends and record.mlp is not None:
            streams[True] = cache["resid_mid", layer] if record.has_middle else cache["resid_pre", layer]
        for mlp_input, stream in streams.items():
            close(cache.decompose_resid(layer, mlp_input).sum(0), stream)
            for expand_neurons in (True, False):
                stack, labels = cache.get_full_resid_decomposition(layer, mlp_input, expand_neurons, return_labels=True)
                assert len(stack) == len(labels) == len(set(labels))
                close(stack.sum(0), stream)


@EVERY_KIND
@torch.no_grad()
def test_values_under_the_pattern_are_the_heads_outputs(kind):
    model = make(kind)
    _, cache = model.run_with_cache(make_tokens())
    for layer in range(model.cfg.n_layers):
        pattern, v = cache["pattern", layer], cache["v", layer]
        v = v.repeat_interleave(pattern.shape[1] // v.shape[2], dim=2)
        close(torch.einsum("bhqk,bkhd->bqhd", pattern, v), cache["z", layer])


@EVERY_KIND
@torch.no_grad()
def test_attributions_sum_to_logits(kind):
    model = make(kind)
    model.process_weights_()
    logits, cache = model.run_with_cache(make_tokens())
    record, answers = anatomy.model_of(model.cfg), make_tokens(seed=5)
    if record.final_norm is not None and record.final_norm.parameters():
        # Attributions leave weight and bias of a norm out, as they say: it is there only where it cannot be folded.
        assert "fold_ln" in dict(plan(Flags(), model.cfg).skipped)
        return
    total = cache.logit_attrs(cache.get_full_resid_decomposition(), answers).sum(0)
    total = total + record.unembedding.multiplier * model.b_U[answers]
    if not record.unembedding.is_linear:
        total = record.unembedding.softcap * (total / record.unembedding.softcap).tanh()
    close(total, logits.gather(-1, answers[..., None])[..., 0])


@EVERY_KIND
@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
@torch.no_grad()
def test_fused_attention_equals_the_explicit_one(kind, padded):
    """Where nobody looks at scores or pattern they are not made; a hook on either makes them."""
    model, tokens = make(kind), make_tokens()
    mask = torch.ones_like(tokens)
    if padded:
        mask[0, :2] = 0
        mask[1, :1] = 0
    settings = {"attention_mask": mask, "padding_side": "left"}
    fused = model(tokens, **settings)
    seen = Counter()

    def look(tensor, hook):
        seen[hook.name] += 1

    names = [lambda name, end=end: name.endswith(end) for end in ("hook_pattern", "hook_attn_scores")]
    explicit = model.run_with_hooks(tokens, fwd_hooks=[(name, look) for name in names], **settings)
    assert set(seen.values()) == {1} and len(seen) == 2 * model.cfg.n_layers
    close(fused[mask.bool()], explicit[mask.bool()])


@EVERY_KIND
@torch.no_grad()
def test_keys_and_values_that_are_kept_are_those_of_one_pass(kind):
    from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

    model, tokens = make(kind), make_tokens()
    whole = model(tokens)
    kept = TransformerLensKeyValueCache.init_cache(model.cfg, torch.device("cpu"), len(tokens))
    steps = [model(tokens[:, :4], past_kv_cache=kept)]
    steps += [model(tokens[:, place : place + 1], past_kv_cache=kept) for place in range(4, tokens.shape[1])]
    close(torch.cat(steps, dim=1), whole)


@EVERY_KIND
@torch.no_grad()
def test_fewer_layers_are_the_first_ones(kind):
    model = make(kind)
    fields = anatomy.first_layers(model.cfg.to_dict(), 2)
    few = anatomy.layers(type(model.cfg)(**fields))
    assert few == anatomy.layers(model.cfg)[:2]
