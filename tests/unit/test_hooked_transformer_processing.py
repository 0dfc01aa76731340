"""Processing of a model that exists: the function stays, the parameters stay, old memory is not written to."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.small_transformers import KINDS, make_model, make_tokens
from transformer_lens.loading import Flags
from transformer_lens.loading.processing import plan

NAMES = (
    "fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases", "refactor_factored_attn_matrices",
)  # fmt: skip
FLAGS = st.fixed_dictionaries({name: st.booleans() for name in NAMES})
EVERY_FLAG = dict.fromkeys(NAMES, True)
EVERY_KIND = pytest.mark.parametrize("kind", sorted(KINDS))


def log_probs(model):
    with torch.no_grad():
        return model(make_tokens()).log_softmax(-1)


@given(st.sampled_from(sorted(KINDS)), FLAGS)
def test_log_probs_stay(kind, flags):
    model = make_model(kind, dtype=torch.float64)
    before = log_probs(model)
    model.process_weights_(**flags)
    torch.testing.assert_close(log_probs(model), before, rtol=1e-9, atol=1e-9)


@EVERY_KIND
def test_processing_again_changes_nothing(kind):
    model = make_model(kind, dtype=torch.float64)
    flags = {**EVERY_FLAG, "refactor_factored_attn_matrices": False}
    model.process_weights_(**flags)
    once = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model.process_weights_(**flags)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), once[name], rtol=1e-12, atol=1e-12)


@EVERY_KIND
def test_parameters_stay_the_objects_they_are_and_old_memory_is_not_written_to(kind):
    model = make_model(kind)
    parameters = dict(model.named_parameters())
    old = {name: parameter.detach() for name, parameter in parameters.items()}
    values = {name: tensor.clone() for name, tensor in old.items()}
    model.process_weights_(**EVERY_FLAG)
    for name, parameter in model.named_parameters():
        assert parameter is parameters[name] and parameter.requires_grad
    assert all(torch.equal(old[name], values[name]) for name in old)


@pytest.mark.parametrize("load_mode", ["copy", "assign"])
@pytest.mark.parametrize("kind", ["gpt2", "square", "llama_gqa", "solu"])
def test_state_dict_is_left_as_it_was(kind, load_mode):
    source = make_model(kind, dtype=torch.float64)
    state = source.state_dict()
    values = {name: tensor.clone() for name, tensor in state.items()}
    model = make_model(kind, dtype=torch.float64, std=0.1)
    model.load_and_process_state_dict(state, load_mode=load_mode, **EVERY_FLAG)
    torch.testing.assert_close(log_probs(model), log_probs(source), rtol=1e-9, atol=1e-9)
    assert all(torch.equal(state[name], values[name]) for name in values)
    shared = {tensor.untyped_storage().data_ptr() for tensor in state.values() if tensor.numel()}
    shares = [name for name, p in model.named_parameters() if p.untyped_storage().data_ptr() in shared]
    # An RMS model's embedding is the one weight of these that no step changes.
    assert ("embed.W_E" in shares) == (load_mode == "assign" and kind == "llama_gqa")
    assert load_mode == "assign" or not shares


def test_optimizer_goes_on():
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.process_weights_()
    before = model.W_U.detach().clone()
    model(make_tokens(), return_type="loss").backward()
    optimizer.step()
    assert not torch.equal(model.W_U, before)


def test_single_steps_return_dicts():
    model = make_model("gpt2", dtype=torch.float64)
    state = model.state_dict()
    values = {name: tensor.clone() for name, tensor in state.items()}
    done = model.fold_layer_norm(state)
    assert not [name for name in done if ".ln" in name and name.endswith((".w", ".b"))]
    assert all(torch.equal(state[name], values[name]) for name in values)
    other = copy.deepcopy(model)
    other.process_weights_(True, False, False, False, False)
    for name, parameter in other.named_parameters():
        torch.testing.assert_close(done[name], parameter.detach())
    biases = model.fold_value_biases(state)
    assert not biases["blocks.1.attn.b_V"].any() and not torch.equal(
        biases["blocks.1.attn.b_O"], values["blocks.1.attn.b_O"]
    )
    assert model.center_unembed(state)["unembed.W_U"].mean(-1).abs().max() < 1e-15
    assert model.center_writing_weights(state)["embed.W_E"].mean(-1).abs().max() < 1e-15


@pytest.mark.parametrize("kind", ["gpt2", "llama_gqa", "attn_only"])
def test_norms_of_what_a_branch_writes_keep_their_weights(kind):
    """Folded, saved and loaded again: the function is the one before, and nothing linear could have taken them in."""
    model = make_model(kind, dtype=torch.float64, use_normalization_before_and_after=True)
    before, kept = log_probs(model), {name: p.clone() for name, p in model.named_parameters() if "_post." in name}
    model.process_weights_()
    assert model.cfg.normalization_type == ("RMSPre" if kind == "llama_gqa" else "LNPre")
    torch.testing.assert_close(log_probs(model), before, rtol=1e-9, atol=1e-9)
    again = type(model).from_state_dict(model.state_dict(), model.cfg)
    torch.testing.assert_close(log_probs(again), before, rtol=1e-9, atol=1e-9)
    for after in (model, again):
        found = {name: p for name, p in after.named_parameters() if "_post." in name}
        assert set(found) == set(kept) and kept and all(torch.equal(found[name], kept[name]) for name in kept)
    from_raw = make_model(kind, dtype=torch.float64, use_normalization_before_and_after=True)
    loaded = type(model).from_state_dict(from_raw.state_dict(), from_raw.cfg, fold_ln=True)
    torch.testing.assert_close(log_probs(loaded), before, rtol=1e-9, atol=1e-9)
    assert ("fold_ln of ln1_post" in dict(loaded.load_report.skipped)) and "fold_ln" in loaded.load_report.steps


@EVERY_KIND
def test_the_plan_names_every_norm_that_keeps_its_weights_and_every_mean_that_stays(kind):
    model = make_model(kind, dtype=torch.float64)
    decided = plan(Flags(**EVERY_FLAG), model.cfg)
    said = dict((*decided.skipped, *decided.kept))
    model.process_weights_(**EVERY_FLAG)
    norms = {name.removesuffix(".w") for name, _ in model.named_parameters() if name.endswith(".w")}
    for norm in norms:
        stem = norm.split(".", 2)[-1] if norm.startswith("blocks.") else norm
        assert "fold_ln" in said or f"fold_ln of {stem}" in said, norm
    named = [name.removeprefix("fold_ln of ") for name in said if name.startswith("fold_ln of ")]
    assert all(any(norm.endswith(stem) for norm in norms) for stem in named), named
    _, cache = model.run_with_cache(make_tokens())
    # What is added to the residual stream, and who writes it.
    writers = {"hook_embed": "embed.ln", "hook_pos_embed": "pos_embed", "attn_out": "attn", "mlp_out": "mlp"}
    for point, writer in writers.items():
        for name in cache:
            if name.rpartition(".")[2].removeprefix("hook_") == point.removeprefix("hook_"):
                centred = cache[name].mean(-1).abs().max() < 1e-9
                why = "center_writing_weights" in said or f"center_writing_weights of {writer}" in said
                assert centred or why, (name, said)


def test_an_embedding_behind_a_norm_is_centred_and_the_report_says_what_is_not():
    model = make_model("alibi", dtype=torch.float64)
    before = log_probs(model)
    decided = plan(Flags(), model.cfg)
    assert "center_writing_weights" in decided.steps
    assert {"center_writing_weights of embed.ln", "fold_ln of embed.ln"} <= {name for name, _ in decided.kept}
    model.process_weights_()
    assert model.W_E.mean(-1).abs().max() < 1e-12
    _, cache = model.run_with_cache(make_tokens())
    assert cache["hook_embed"].mean(-1).abs().max() > 1e-3
    torch.testing.assert_close(log_probs(model), before, rtol=1e-9, atol=1e-9)
