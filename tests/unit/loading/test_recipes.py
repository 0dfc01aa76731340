"""What a table can say: one synthetic entry for each way the measured families lie in their files."""

import pytest
import torch

from transformer_lens.config import HookedTransformerConfig
from transformer_lens.loading.conversion import Architecture, Choose, Derived, Stack, Take, When, Zeros
from transformer_lens.loading.conversion.reading import Reader
from transformer_lens.loading.errors import MissingTensorError, UnexpectedTensorError
from transformer_lens.loading.weights import Held, Weights

HEADS, KV_HEADS, D_HEAD, D_MODEL, D_MLP, D_VOCAB, N_CTX, EXPERTS = 6, 3, 5, 7, 11, 17, 13, 4
Q = "head d_model d_head"
K = "kv_head d_model d_head"


def config(**fields):
    sizes = {"n_layers": 2, "d_model": D_MODEL, "n_ctx": N_CTX, "d_head": D_HEAD, "n_heads": HEADS, "d_mlp": D_MLP,
             "d_vocab": D_VOCAB, "n_key_value_heads": KV_HEADS, "act_fn": "silu", "device": "cpu"}  # fmt: skip
    return HookedTransformerConfig(**{**sizes, **fields})


def reader(tensors, block=None, once=None, hf_config=None, cfg=None, **architecture):
    """A reader of a file that has an embedding and these tensors."""
    table = Architecture(
        **{
            "name": "SyntheticForCausalLM",
            "model_type": "synthetic",
            "prefix": "model.",
            "anchor": "embed.weight",
            "layer": "{p}layers.{i}.",
            "once": once or {},
            "block": block or {},
            "read_config": lambda view: {},
            **architecture,
        }
    )
    file = {"model.embed.weight": torch.zeros(D_VOCAB, D_MODEL, dtype=torch.bfloat16), **tensors}
    return Reader(Weights.from_state_dict(file), table, cfg or config(), hf_config or {}, "a synthetic file")


def rand(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def rows(tensor, slots):
    """Heads of a fused matrix, each transposed; `slots` counts in heads."""
    return torch.stack([tensor[D_HEAD * slot : D_HEAD * (slot + 1)].T for slot in slots])


def is_view(promise, tensor):
    return (
        promise.held is Held.BORROWED
        and promise.make().untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
    )


def test_slots_of_several_kinds():
    """Phi-3 and Falcon 7b: query heads, then key heads, then value heads."""
    fused = rand((HEADS + 2 * KV_HEADS) * D_HEAD, D_MODEL)
    sizes = {"slot": "head + 2 * kv_head"}

    def take(slots):
        return Take("{p}layers.{i}.qkv.weight", "(slot d_head) d_model", pick={"slot": slots}, sizes=sizes)

    block = {
        "attn.W_Q": take("0:head"),
        "attn.W_K": take("head:head + kv_head"),
        "attn.W_V": take("head + kv_head:"),
    }
    found = reader({"model.layers.1.qkv.weight": fused}, block)
    for name, axes, slots in (("W_Q", Q, range(6)), ("_W_K", K, range(6, 9)), ("_W_V", K, range(9, 12))):
        promise = found.parameter(f"blocks.1.attn.{name}", axes)
        assert torch.equal(promise.make(), rows(fused, slots))
        assert promise.layout == axes and is_view(promise, fused)


def test_one_key_head_for_all():
    """GPTBigCode and Falcon 7b with multi-query attention."""
    fused = rand((HEADS + 2) * D_HEAD, D_MODEL)
    take = Take(
        "{p}layers.{i}.qkv.weight", "(slot d_head) d_model", {"slot": "head:head + 1"}, sizes={"slot": "head + 2"}
    )
    found = reader({"model.layers.0.qkv.weight": fused}, {"attn.W_K": take}, cfg=config(n_key_value_heads=1))
    promise = found.parameter("blocks.0.attn._W_K", K)
    assert torch.equal(promise.make(), rows(fused, [HEADS]))
    assert is_view(promise, fused)


def test_nested_slots_merge_to_heads():
    """Falcon 40b: each group has its queries, one key, one value. Keys are views; merged queries cannot be."""
    fused = rand(KV_HEADS * 4 * D_HEAD, D_MODEL)
    layout, sizes = "(kv_head slot d_head) d_model", {"slot": "head // kv_head + 2"}
    key = "{p}layers.{i}.qkv.weight"
    block = {
        "attn.W_Q": Take(key, layout, {"slot": "0:head // kv_head"}, {"head": ("kv_head", "group")}, sizes=sizes),
        "attn.W_K": Take(key, layout, {"slot": "head // kv_head"}, sizes=sizes),
    }
    found = reader({"model.layers.0.qkv.weight": fused}, block)
    queries = found.parameter("blocks.0.attn.W_Q", Q)
    assert torch.equal(queries.make(), rows(fused, [0, 1, 4, 5, 8, 9]))
    assert queries.held is Held.FRESH and queries.cost == queries.nbytes and queries.sources[0].make() is fused
    before = fused.clone()
    queries.make().zero_()
    assert torch.equal(fused, before)
    keys = found.parameter("blocks.0.attn._W_K", K)
    assert torch.equal(keys.make(), rows(fused, [2, 6, 10]))
    assert is_view(keys, fused)


@pytest.mark.parametrize(
    ("layout", "shape", "gate"),
    [
        ("expert d_model (d_mlp gate_up)", (EXPERTS, D_MODEL, 2 * D_MLP), lambda t, e: t[e][:, 0::2]),  # gpt-oss
        ("expert (gate_up d_mlp) d_model", (EXPERTS, 2 * D_MLP, D_MODEL), lambda t, e: t[e][:D_MLP].T),  # GraniteMoE
    ],
)
def test_experts_of_one_tensor(layout, shape, gate):
    fused = rand(*shape)
    take = Take("{p}layers.{i}.experts.gate_up", layout, {"expert": "{e}", "gate_up": 0})
    cfg = config(num_experts=EXPERTS, experts_per_token=2)
    found = reader({"model.layers.1.experts.gate_up": fused}, {"mlp.experts.{e}.W_gate": take}, cfg=cfg)
    for expert in range(EXPERTS):
        promise = found.parameter(f"blocks.1.mlp.experts.{expert}.W_gate", "d_model d_mlp")
        assert torch.equal(promise.make(), gate(fused, expert))
        assert is_view(promise, fused)


def test_experts_of_a_tensor_each_beside_dense_layers():
    """Mixtral's names, and Qwen-MoE's mix: the schema asks for experts in one layer and a dense MLP in another."""
    d_expert = 19
    tensors = {f"model.layers.1.experts.{e}.w3.weight": rand(d_expert, D_MODEL) + e for e in range(EXPERTS)}
    tensors["model.layers.0.up_proj.weight"] = rand(D_MLP, D_MODEL)
    block = {
        "mlp.experts.{e}.W_in.weight": Take(
            "{p}layers.{i}.experts.{e}.w3.weight", "d_expert d_model", sizes={"d_expert": "moe_intermediate_size"}
        ),
        "mlp.W_in": Take("{p}layers.{i}.up_proj.weight", "d_mlp d_model"),
    }
    cfg = config(num_experts=EXPERTS, experts_per_token=2)
    found = reader(tensors, block, cfg=cfg, hf_config={"moe_intermediate_size": d_expert})
    for expert in range(EXPERTS):
        promise = found.parameter(f"blocks.1.mlp.experts.{expert}.W_in.weight", "d_expert d_model")
        assert torch.equal(promise.make(), tensors[f"model.layers.1.experts.{expert}.w3.weight"])
    dense = found.parameter("blocks.0.mlp.W_in", "d_model d_mlp")
    assert torch.equal(dense.make(), tensors["model.layers.0.up_proj.weight"].T)
    assert not found.missing and not found.mismatched


def test_several_tensors_into_one():
    """StableLM's norm of each head."""
    norms = {f"model.layers.0.q_norm.{h}.weight": rand(D_HEAD) + h for h in range(HEADS)}
    block = {"attn.q_norm.w": Stack("{p}layers.{i}.q_norm.{e}.weight", over="head", layout="d_head")}
    found = reader(norms, block)
    promise = found.parameter("blocks.0.attn.q_norm.w", "head d_head")
    assert torch.equal(promise.make(), torch.stack(list(norms.values())))
    assert promise.shape == (HEADS, D_HEAD) and promise.held is Held.FRESH and len(promise.sources) == HEADS
    assert promise.make() is not promise.make()
    assert sorted(found.used) == sorted(norms)
    across = found.parameter("blocks.0.attn.q_norm.w", "d_head head")
    assert torch.equal(across.make(), promise.make().T)


def test_a_stack_with_a_gap_names_what_is_missing():
    norms = {f"model.layers.0.q_norm.{h}.weight": rand(D_HEAD) for h in range(HEADS) if h not in (1, 4)}
    found = reader(norms, {"attn.q_norm.w": Stack("{p}layers.{i}.q_norm.{e}.weight", "head", "d_head")})
    assert found.parameter("blocks.0.attn.q_norm.w", "head d_head") is None
    assert found.missing == ["model.layers.0.q_norm.1.weight", "model.layers.0.q_norm.4.weight"]


DERIVED = {
    "gemma's 1 + w": (
        (Take("{p}a", "d_model"),), lambda w: 1 + w, "d_model", {"model.a": rand(D_MODEL)}, lambda f: f["model.a"] + 1,
    ),
    "granite's scaled embedding": (
        (Take("{p}a", "d_vocab d_model"),), lambda w: w * 12.0, "d_vocab d_model",
        {"model.a": rand(D_VOCAB, D_MODEL)}, lambda f: f["model.a"] * 12.0,
    ),
    "two factors": (
        (Take("{p}a", "d_vocab d_head"), Take("{p}b", "d_model d_head")), lambda a, b: a @ b.T, "d_vocab d_model",
        {"model.a": rand(D_VOCAB, D_HEAD), "model.b": rand(D_MODEL, D_HEAD)}, lambda f: f["model.a"] @ f["model.b"].T,
    ),
    "weight norm": (
        (Take("{p}g", "1 1 n_ctx"), Take("{p}v", "d_model d_head n_ctx")),
        lambda g, v: g * v / v.flatten(0, 1).norm(dim=0), "d_model d_head n_ctx",
        {"model.g": rand(1, 1, N_CTX), "model.v": rand(D_MODEL, D_HEAD, N_CTX)},
        lambda f: torch._weight_norm(f["model.v"], f["model.g"], 2),
    ),
    "of one part of a fused matrix": (
        (Take("{p}a", "d_model (qkv head d_head)", {"qkv": 1}),), lambda w: -w.transpose(0, 1), Q,
        {"model.a": rand(D_MODEL, 3 * HEADS * D_HEAD)},
        lambda f: -f["model.a"][:, 30:60].reshape(D_MODEL, HEADS, D_HEAD).transpose(0, 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DERIVED)
def test_values_computed_on_load(name):
    """They are new tensors every time, and what they are computed of stays as it was."""
    of, function, axes, tensors, expected = DERIVED[name]
    before = {key: tensor.clone() for key, tensor in tensors.items()}
    found = reader(tensors, once={"x": Derived(of, function, "changed")})
    promise = found.parameter("x", axes)
    out = promise.make()
    assert torch.allclose(out, expected(tensors), atol=1e-6)
    assert tuple(out.shape) == promise.shape and promise.layout == axes
    assert promise.held is Held.FRESH and promise.origin.steps[-1] == "changed"
    out.zero_()
    promise.make().zero_()
    assert all(torch.equal(tensor, before[key]) for key, tensor in tensors.items())
    assert sorted(found.used) == sorted(tensors)


def test_a_computed_value_of_another_shape_is_a_bug_of_the_table():
    found = reader({"model.a": rand(D_MODEL)}, once={"x": Derived((Take("{p}a", "d_model"),), lambda w: w[1:], "cut")})
    with pytest.raises(AssertionError, match=r"x: \(6,\) is not d_model = \(7,\)"):
        found.parameter("x", "d_model").make()


def test_a_bias_by_config():
    take = Take("{p}layers.{i}.b", "(head d_head)", when=When("attention_bias", False))
    tensors = {"model.layers.0.b": rand(HEADS * D_HEAD)}
    on = reader(tensors, {"attn.b_Q": take}, hf_config={"attention_bias": True})
    assert torch.equal(on.parameter("blocks.0.attn.b_Q", "head d_head").make().flatten(), tensors["model.layers.0.b"])
    for off in ({"attention_bias": False}, {"attention_bias": None}, {}):
        found = reader(tensors, {"attn.b_Q": take}, hf_config=off)
        promise = found.parameter("blocks.0.attn.b_Q", "head d_head")
        assert not promise.make().any() and promise.dtype == torch.bfloat16 and promise.held is Held.FRESH
        assert found.zero_filled == ["blocks.0.attn.b_Q"] and not found.used
    lacking = reader({}, {"attn.b_Q": take}, hf_config={"attention_bias": True})
    assert lacking.parameter("blocks.0.attn.b_Q", "head d_head") is None
    assert lacking.missing == ["model.layers.0.b"]


def test_a_bias_by_presence():
    take = Take("{p}layers.{i}.b", "d_model", optional=True)
    found = reader({"model.layers.0.b": rand(D_MODEL)}, {"attn.b_O": take})
    assert found.parameter("blocks.0.attn.b_O", "d_model").make().any()
    assert not found.parameter("blocks.1.attn.b_O", "d_model").make().any()
    assert found.zero_filled == ["blocks.1.attn.b_O"] and not found.missing


def test_zeros_for_what_the_file_never_has():
    found = reader({}, {"attn.b_K": Zeros()})
    for name in ("blocks.0.attn._b_K", "blocks.0.attn._b_V"):
        promise = found.parameter(name, "kv_head d_head")
        assert promise.make() is not promise.make() and promise.shape == (KV_HEADS, D_HEAD)
    assert found.zero_filled == ["blocks.0.attn._b_K", "blocks.0.attn._b_V"]


def test_a_matrix_is_never_zero_because_the_table_forgot_it():
    with pytest.raises(AssertionError, match=r"no recipe for mlp\.W_in"):
        reader({}).parameter("blocks.0.mlp.W_in", "d_model d_mlp")


def test_a_layout_by_config():
    """Falcon, GPTBigCode: one class, several layouts."""
    fused = rand(3 * HEADS * D_HEAD, D_MODEL)
    key = "{p}layers.{i}.qkv.weight"
    recipe = Choose(
        When("alibi", False),
        Take(key, "(head qkv d_head) d_model", {"qkv": 0}),
        Choose(When("parts", 3, equals=3), Take(key, "(qkv head d_head) d_model", {"qkv": 0}), Zeros()),
    )
    tensors = {"model.layers.0.qkv.weight": fused}
    for hf_config, expected in (
        ({"alibi": True}, rows(fused, range(0, 18, 3))),
        ({}, rows(fused, range(6))),
        ({"parts": 2}, torch.zeros(HEADS, D_MODEL, D_HEAD)),
    ):
        found = reader(tensors, {"attn.W_Q": recipe}, hf_config=hf_config)
        assert torch.equal(found.parameter("blocks.0.attn.W_Q", Q).make().float(), expected)


def test_rows_before_the_first():
    """OPT: position p is row p + 2."""
    table = rand(N_CTX + 2, D_MODEL)
    found = reader(
        {"model.positions": table}, once={"pos_embed.W_pos": Take("{p}positions", "n_ctx d_model", first_row=2)}
    )
    promise = found.parameter("pos_embed.W_pos", "n_ctx d_model")
    assert torch.equal(promise.make(), table[2:])
    assert is_view(promise, table)
    short = reader({"model.positions": table[2:]}, once=dict(found._architecture.once))
    assert short.parameter("pos_embed.W_pos", "n_ctx d_model") is None
    assert "(13, 7)" in short.mismatched["model.positions"] and "(15, 7)" in short.mismatched["model.positions"]


@pytest.mark.parametrize("prefix", ["", "model.", "language_model.model."])
def test_a_prefix_is_found_once_for_all(prefix):
    file = {f"{prefix}embed.weight": rand(D_VOCAB, D_MODEL), f"{prefix}norm": rand(D_MODEL)}
    found = Reader(Weights.from_state_dict(file), *_table("language_model.model."), {}, "a file")
    assert torch.equal(found.parameter("ln_final.w", "d_model").make(), file[f"{prefix}norm"])


def _table(*others):
    found = reader({}, once={"ln_final.w": Take("{p}norm", "d_model")}, other_prefixes=others)
    return found._architecture, config()


def test_two_prefixes_in_one_file():
    file = {f"{prefix}embed.weight": rand(D_VOCAB, D_MODEL) for prefix in ("", "model.")}
    with pytest.raises(UnexpectedTensorError, match="two models in one checkpoint"):
        Reader(Weights.from_state_dict(file), *_table(), {}, "a file")


def test_no_prefix_fits():
    file = {"transformer.wte.weight": rand(D_VOCAB, D_MODEL)}
    with pytest.raises(MissingTensorError, match=r"holds none of 'model.embed.weight', 'embed.weight'"):
        Reader(Weights.from_state_dict(file), *_table(), {}, "a file")


def test_alternative_names():
    take = Take(("embed_out", "lm_head"), "d_vocab_out d_model")
    for name in ("embed_out", "lm_head"):
        tensor = rand(D_VOCAB, D_MODEL)
        found = reader({name: tensor}, once={"unembed.W_U": take})
        assert torch.equal(found.parameter("unembed.W_U", "d_model d_vocab_out").make(), tensor.T)
        assert list(found.used) == [name]
    both = reader({"embed_out": tensor, "lm_head": tensor}, once={"unembed.W_U": take})
    with pytest.raises(UnexpectedTensorError, match="'embed_out' and 'lm_head', which mean the same"):
        both.parameter("unembed.W_U", "d_model d_vocab_out")
    neither = reader({}, once={"unembed.W_U": take})
    assert neither.parameter("unembed.W_U", "d_model d_vocab_out") is None
    assert neither.missing == ["embed_out or lm_head"]


def test_keys_of_layers_beyond():
    architecture, _ = _table("language_model.model.")
    beyond = architecture.beyond(3)
    for prefix in ("", "model.", "language_model.model."):
        assert not beyond(f"{prefix}layers.2.w") and beyond(f"{prefix}layers.3.w") and beyond(f"{prefix}layers.12.w")
    assert not beyond("lm_head.weight") and not beyond("other.layers.7.w") and not beyond("model.layers.x.w")
    assert not architecture.beyond(None)("model.layers.99.w")
