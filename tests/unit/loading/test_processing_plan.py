"""What is legal: every trait that forbids a step, and its reason; then that the reasons are right."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.loading.laid_out import LLAMA, config
from transformer_lens import anatomy
from transformer_lens.loading.processing import Flags, plan

ALL = Flags(True, True, True, True, True)
STEPS = (
    "fold_ln", "fold_value_biases", "center_writing_weights", "center_unembed", "refactor_query_key",
    "refactor_value_output",
)  # fmt: skip
ROTARY = {"positional_embedding_type": "rotary", "rotary_dim": 8}
SHARED = {"refactor_query_key": "keys are shared", "refactor_value_output": "values are shared"}
EXPERTS = {"num_experts": 4, "experts_per_token": 2}
RMS = {"center_writing_weights": "RMS norms do not take the mean away"}

# traits -> the steps that they forbid, each with the beginning of the reason
LEGALITY = [
    ({}, {}),
    ({"parallel_attn_mlp": True}, {}),
    ({"post_embedding_ln": True, "positional_embedding_type": "alibi"}, {}),
    ({"attn_only": True, "act_fn": None, "d_mlp": None}, {}),
    ({"act_fn": "solu_ln"}, {}),
    ({"attn_scores_soft_cap": 5.0}, {}),
    ({"use_local_attn": True, "window_size": 3, "attn_types": ["global", "local"]}, {}),
    (ROTARY, {"refactor_query_key": "positions rotate"}),
    ({"normalization_type": "RMS"}, RMS),
    (LLAMA, {**RMS, "refactor_query_key": "positions rotate"}),
    ({**LLAMA, "n_key_value_heads": 3}, {**RMS, **SHARED}),
    ({"n_key_value_heads": 6}, {}),
    ({"normalization_type": "RMSPre"}, {**RMS, "fold_ln": "the norms are folded already"}),
    ({"normalization_type": "LNPre"}, {"fold_ln": "the norms are folded already"}),
    (
        {"normalization_type": None},
        {"fold_ln": "the model has no norms", "center_writing_weights": "the model has no norms"},
    ),
    ({"final_rms": True}, {"center_writing_weights": "the final RMS norm"}),
    ({"normalization_type": "LNPre", "final_rms": True},
     {"fold_ln": "the norms are folded", "center_writing_weights": "the final RMS norm"}),
    ({"positional_embedding_type": "shortformer"},
     {"fold_ln": "positions are added behind the norm", "center_writing_weights": "positions are not written"}),
    # The bias that a gate lacks is ours, and zero until a norm is folded.
    ({"gated_mlp": True}, {}),
    ({"norm_placement": "output"}, {"center_writing_weights": "a norm stands between"}),
    ({"norm_placement": "post"}, {}),
    ({"norm_placement": "post", "has_final_norm": False}, {"fold_ln": "no norm with a weight is read"}),
    ({"has_final_norm": False}, {"center_writing_weights": "a branch reads the residual stream without a norm"}),
    ({"norm_weight": False}, {"fold_ln": "no norm with a weight is read"}),
    ({"norm_bias": False}, {}),
    ({"norm_weight_offset": 1.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5, "logit_multiplier": 0.3}, {}),
    ({"normalization_type": "RMS", "post_embedding_ln": True}, {}),
    ({"gated_mlp": True, "gated_mlp_bias": True}, {}),
    ({"gated_mlp": True, **EXPERTS}, {}),
    ({"gated_mlp": True, **EXPERTS, "norm_bias": False}, {}),
    ({"gated_mlp": True, **EXPERTS, "router_bias": True, "expert_bias": True}, {}),
    ({"gated_mlp": True, **EXPERTS, "normalization_type": "RMS"}, RMS),
    ({"gated_mlp": True, "normalization_type": "RMS"}, RMS),
    ({"output_logits_soft_cap": 30.0}, {"center_unembed": "the cap of the logits"}),
    ({**LLAMA, "use_normalization_before_and_after": True}, {**RMS, "refactor_query_key": "positions rotate"}),
    ({"use_normalization_before_and_after": True}, {"center_writing_weights": "a norm stands between"}),
    ({"use_qk_norm": True}, {"refactor_query_key": "a norm stands between"}),
    ({"use_attention_sinks": True},
     {"fold_value_biases": "attention weights sum to less", "refactor_value_output": "value biases stand between"}),
    ({"clip_qkv": 6.0},
     {"fold_value_biases": "values are clipped", "refactor_query_key": "queries and keys are clipped",
      "refactor_value_output": "values are clipped"}),
]  # fmt: skip


def named(traits):
    return ",".join(f"{name}={value}" for name, value in traits.items())[:70] or "plain"


@pytest.mark.parametrize(("traits", "forbidden"), LEGALITY, ids=[named(traits) for traits, _ in LEGALITY])
def test_legality(traits, forbidden):
    cfg = config(**traits)
    decided = plan(ALL, cfg)
    reasons = dict(decided.skipped)
    assert len(reasons) == len(decided.skipped)
    assert set(reasons) == set(forbidden)
    assert decided.steps == tuple(step for step in STEPS if step not in forbidden)
    for step, beginning in forbidden.items():
        assert reasons[step].startswith(beginning)
    assert bool(decided.norms) == ("fold_ln" in decided.steps)
    read = [f"{record.prefix}{branch.reads.name}" for record in anatomy.layers(cfg) for branch in record.branches
            if branch.reads is not None]  # fmt: skip
    if decided.norms:
        assert set(read) <= set(decided.norms) and ("ln_final" in decided.norms) == cfg.has_final_norm
    # What stays as it is in a step that is done: norms that no matrix alone reads, and writers whose mean is seen.
    stays: set[str] = set()
    embedding = anatomy.embedding_of(cfg).norm
    if "fold_ln" in decided.steps:
        stays |= {f"fold_ln of {norm.name}" for record in anatomy.layers(cfg) for branch in record.branches
                  for norm in (branch.writes, branch.closes) if norm is not None}  # fmt: skip
        heads = [norm for record in anatomy.layers(cfg) for norm in (record.attends.q_norm, record.attends.k_norm)]
        stays |= {f"fold_ln of {norm.name}" for norm in (*heads, embedding) if norm is not None}
    if "center_writing_weights" in decided.steps:
        seen = set(anatomy.model_of(cfg).writers()) - set(decided.writers)
        stays |= {f"center_writing_weights of {name}" for name in seen}
        stays |= set() if embedding is None else {f"center_writing_weights of {embedding.name}"}
    assert {step for step, _ in decided.kept} == stays
    assert all(reason for _, reason in decided.kept)


@pytest.mark.parametrize("asked", list(itertools.product([False, True], repeat=5)))
def test_only_what_is_asked_for_is_done_or_explained(asked):
    flags = Flags(*asked)
    for traits, _ in LEGALITY:
        decided = plan(flags, config(**traits))
        mentioned = {*decided.steps, *dict(decided.skipped)}
        wanted = {name for name, is_asked in vars(flags).items() if is_asked}
        if flags.refactor_factored_attn_matrices:
            wanted = wanted - {"refactor_factored_attn_matrices"} | {"refactor_query_key", "refactor_value_output"}
        assert mentioned == wanted
        assert "refactor_value_output" not in decided.steps or flags.fold_value_biases
    assert plan(Flags.none(), config()).steps == () == plan(Flags.none(), config()).skipped


@pytest.mark.parametrize(
    ("packed", "forbidden"),
    [
        ("blocks.1.attn.W_Q", {"fold_ln", "refactor_query_key"}),
        ("blocks.0.attn.W_K", {"fold_ln", "refactor_query_key"}),
        ("blocks.0.attn.W_V", {"fold_ln", "refactor_value_output"}),
        (
            "blocks.0.attn.W_O",
            {"fold_value_biases", "center_writing_weights", "refactor_value_output"},
        ),
        ("blocks.0.mlp.W_in", {"fold_ln"}),
        ("blocks.0.mlp.W_gate", {"fold_ln"}),
        ("blocks.0.mlp.W_out", {"center_writing_weights"}),
        ("embed.W_E", {"center_writing_weights"}),
        ("unembed.W_U", {"fold_ln", "center_unembed"}),
    ],
)
def test_packed_weights_are_not_changed(packed, forbidden):
    decided = plan(ALL, config(gated_mlp=True), packed=[packed])
    assert set(dict(decided.skipped)) == forbidden
    assert dict(decided.skipped)[sorted(forbidden)[0]] == f"packed weights are not changed: {packed}"
    assert set(decided.steps) == set(STEPS) - forbidden
    assert bool(decided.norms) == ("fold_ln" in decided.steps)


def test_a_packed_reader_inside_a_solu_mlp():
    assert "fold_ln" not in plan(ALL, config("solu"), packed=["blocks.0.mlp.W_out"]).steps


@given(st.lists(st.booleans(), min_size=5, max_size=5), st.sampled_from([torch.float32, torch.bfloat16]))
def test_a_plan_depends_on_its_arguments_only(asked, dtype):
    cfg = config(dtype=dtype)
    before = dict(vars(cfg))
    assert plan(Flags(*asked), cfg) == plan(Flags(*asked), config())
    assert vars(cfg) == before
