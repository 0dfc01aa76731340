"""Each step against the same mathematics in plain dense float64, whatever the order of axes in memory."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.loading.laid_out import (
    CONFIGS,
    config,
    order_in_memory,
    promise,
    random_state,
    storages,
    unreadable,
    weights_of,
)
from transformer_lens import anatomy
from transformer_lens.anatomy import schema
from transformer_lens.loading import processing
from transformer_lens.loading.processing import Flags, blocks
from transformer_lens.loading.weights import Held, Weights

CPU = torch.device("cpu")
KINDS = st.sampled_from(sorted(CONFIGS))
FLAGS = st.builds(Flags, *[st.booleans()] * 4)


@pytest.fixture(autouse=True)
def small_blocks():
    before, blocks._BLOCK_BYTES = blocks._BLOCK_BYTES, 256
    yield
    blocks._BLOCK_BYTES = before


def kv(cfg, leaf):
    return leaf if cfg.n_key_value_heads is None else f"_{leaf}"


def folded(s, cfg):
    """Folds every norm of a state dict in place."""

    def fold(norm, matrix, bias):
        centres = cfg.normalization_type == "LN" and not (norm == "ln_final" and cfg.final_rms)
        w, b = s[f"{norm}.w"], s.get(f"{norm}.b")
        axis = s[matrix].ndim - 2
        if b is not None and bias in s:
            s[bias] = s[bias] + torch.tensordot(b, s[matrix], dims=([0], [axis]))
        s[matrix] = s[matrix] * w[:, None]
        if centres:
            s[matrix] = s[matrix] - s[matrix].mean(axis, keepdim=True)

    for layer in range(cfg.n_layers):
        block = f"blocks.{layer}."
        for matrix, bias in (("W_Q", "b_Q"), (kv(cfg, "W_K"), kv(cfg, "b_K")), (kv(cfg, "W_V"), kv(cfg, "b_V"))):
            fold(f"{block}ln1", f"{block}attn.{matrix}", f"{block}attn.{bias}")
        if not cfg.attn_only:
            fold(f"{block}ln2", f"{block}mlp.W_in", f"{block}mlp.b_in")
            if cfg.gated_mlp:
                fold(f"{block}ln2", f"{block}mlp.W_gate", f"{block}mlp.b_gate")
            if cfg.act_fn == "solu_ln":
                fold(f"{block}mlp.ln", f"{block}mlp.W_out", f"{block}mlp.b_out")
    fold("ln_final", "unembed.W_U", "unembed.b_U")
    for name in [name for name in s if name.rpartition(".")[0].endswith(("ln1", "ln2", "ln_final", "mlp.ln"))]:
        del s[name]


def by_formula(state, cfg, flags):
    """What the flags mean, on float64 tensors, one at a time."""
    s = {name: tensor.double().contiguous() for name, tensor in state.items()}
    if flags.fold_ln:
        folded(s, cfg)
    if flags.fold_value_biases:
        for layer in range(cfg.n_layers):
            attn = f"blocks.{layer}.attn."
            b_V = s[attn + kv(cfg, "b_V")].repeat_interleave(cfg.n_heads // cfg.n_kv_heads, dim=0)
            s[f"{attn}b_O"] = s[f"{attn}b_O"] + torch.einsum("hd,hdm->m", b_V, s[f"{attn}W_O"])
            s[attn + kv(cfg, "b_V")] = torch.zeros_like(s[attn + kv(cfg, "b_V")])
    seen_by_all = cfg.normalization_type == "LN" and not cfg.final_rms and not cfg.use_normalization_before_and_after
    if flags.center_writing_weights and seen_by_all:
        for name in s:
            if name.rpartition(".")[2] in ("W_E", "W_pos", "W_O", "b_O", "W_out", "b_out"):
                s[name] = s[name] - s[name].mean(-1, keepdim=True)
    if flags.center_unembed:
        for name in ("unembed.W_U", "unembed.b_U"):
            s[name] = s[name] - s[name].mean(-1, keepdim=True)
    return s


@given(KINDS, FLAGS, st.integers(0, 99))
def test_steps_are_the_formula(kind, flags, seed):
    cfg = config(kind)
    state = random_state(cfg, seed=seed)
    before = {name: tensor.clone() for name, tensor in state.items()}
    weights = weights_of(state, cfg)
    plan = processing.plan(flags, cfg)
    result, done = processing.apply(plan, weights, cfg)
    expected = by_formula(state, cfg, flags)
    assert set(result) == set(expected) == set(schema(done))
    for name, promised in result.items():
        made = promised.make()
        torch.testing.assert_close(made, expected[name], rtol=1e-11, atol=1e-12, msg=lambda text: f"{name}: {text}")
        assert tuple(made.shape) == promised.shape and made.dtype == promised.dtype
        if promised.held is Held.FRESH:
            assert not storages([made]) & storages(state.values()), name
            assert name.endswith(("b_V", "b_O")) or order_in_memory(made) == order_in_memory(state[name]), name
        else:
            assert made is state[name] and torch.equal(expected[name], made)
    for name, tensor in state.items():
        assert torch.equal(tensor, before[name]) and tensor._version == before[name]._version == 0, name


@given(KINDS, st.sampled_from([torch.bfloat16, torch.float16]), st.booleans())
def test_short_dtypes_are_rounded_once(kind, dtype, widens):
    """From a short dtype: the result has float32's precision where float32 is asked for, else one rounding's."""
    cfg = config(kind)
    state = random_state(cfg, dtype=dtype)
    flags = Flags()
    result, _ = processing.apply(processing.plan(flags, cfg), weights_of(state, cfg), cfg)
    wanted = torch.float32 if widens else dtype
    expected = by_formula(state, cfg, flags)
    for name, made in processing.cast(result, wanted, CPU).state_dict().items():
        assert made.dtype == wanted
        tolerance = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}[wanted]
        torch.testing.assert_close(made.double(), expected[name], rtol=tolerance, atol=max(1e-6, tolerance / 50))


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_nothing_is_read_before_a_promise_is_kept(kind):
    cfg = config(kind)
    shapes = {name: tensor.shape for name, tensor in random_state(cfg).items()}
    weights = Weights({name: unreadable(shapes[name], layout=axes) for name, axes in schema(cfg).items()})
    plan = processing.plan(Flags(refactor_factored_attn_matrices=True), cfg)
    result, _ = processing.apply(plan, weights, cfg)
    result = processing.cast(result, torch.bfloat16, CPU)
    assert result.nbytes == sum(shapes[name].numel() * 2 for name in result)
    fresh = [name for name in result if not name.endswith("b_V")]
    assert all(result[name].held is Held.FRESH and result[name].sources for name in fresh)
    with pytest.raises(AssertionError, match="was read"):
        result["unembed.W_U"].make()


@pytest.mark.parametrize("kind", ["gpt2", "square", "wide_heads", "attn_only"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_refactored_circuits(kind, dtype):
    """The products stay; the factors are orthogonal, the larger singular value first."""
    cfg = config(kind)
    state = random_state(cfg, dtype=dtype)
    flags = Flags(False, False, False, True, True)
    plan = processing.plan(flags, cfg)
    assert plan.steps == ("fold_value_biases", "refactor_query_key", "refactor_value_output")
    found = processing.apply(plan, weights_of(state, cfg), cfg)[0].state_dict()
    close = {"rtol": 1e-10, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-4}
    for layer in range(cfg.n_layers):
        attn = f"blocks.{layer}.attn."
        for name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O"):
            assert found[attn + name].shape == state[attn + name].shape
        for name in ("W_Q", "W_K", "W_V", "W_O"):
            assert order_in_memory(found[attn + name]) == order_in_memory(state[attn + name])

        def circuit(s, left, right):
            return s[attn + left].double() @ s[attn + right].double()

        torch.testing.assert_close(circuit(found, "W_V", "W_O"), circuit(state, "W_V", "W_O"), **close)

        def scores(s):
            queries, keys = (torch.cat([s[attn + f"W_{x}"], s[attn + f"b_{x}"][:, None]], dim=1) for x in "QK")
            return queries.double() @ keys.double().transpose(1, 2)

        torch.testing.assert_close(scores(found), scores(state), **close)
        width = min(cfg.d_head, cfg.d_model)
        rows = found[f"{attn}W_O"].double()
        torch.testing.assert_close((rows @ rows.transpose(1, 2))[:, :width, :width], identity(width, rows), **close)
        columns = found[f"{attn}W_V"].double()
        gram = columns.transpose(1, 2) @ columns
        torch.testing.assert_close(gram, torch.diag_embed(gram.diagonal(dim1=1, dim2=2)), **close)
        assert (gram.diagonal(dim1=1, dim2=2).diff(dim=1) < 1e-6).all()


def identity(width, like):
    return torch.eye(width, dtype=like.dtype).expand(like.shape[0], width, width)


def test_a_refactored_promise_can_be_kept_again():
    cfg = config()
    state = random_state(cfg)
    plan = processing.plan(Flags(False, False, False, True, True), cfg)
    result, _ = processing.apply(plan, weights_of(state, cfg), cfg)
    first, second = result.state_dict(), result.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    fresh = [name for name in result if result[name].held is Held.FRESH]
    assert not storages(first[name] for name in fresh) & storages(second[name] for name in fresh)


def test_no_value_bias_is_no_alias():
    """Where there is nothing to add, b_O is new all the same: whoever gets it may write to it."""
    cfg = config("llama")
    state = random_state(cfg)
    for name in state:
        if name.endswith("b_V"):
            state[name] = torch.zeros_like(state[name])
    result = processing.fold_value_biases(weights_of(state, cfg), cfg).state_dict()
    assert torch.equal(result["blocks.0.attn.b_O"], state["blocks.0.attn.b_O"])
    assert not storages([result["blocks.0.attn.b_O"]]) & storages(state.values())


def test_a_tied_unembedding_is_folded_into_a_tensor_of_its_own():
    cfg = config(d_vocab=29)
    state = random_state(cfg)
    state["unembed.W_U"] = state["embed.W_E"].t()
    before = state["embed.W_E"].clone()
    result, _ = processing.apply(processing.plan(Flags(), cfg), weights_of(state, cfg), cfg)
    made = result.state_dict()
    assert torch.equal(state["embed.W_E"], before)
    assert len(storages([made["embed.W_E"], made["unembed.W_U"], before, state["embed.W_E"]])) == 4


@pytest.mark.parametrize("fold_biases", [True, False])
@pytest.mark.parametrize("center_weights", [True, False])
def test_parts_of_folding(fold_biases, center_weights):
    cfg = config()
    state = random_state(cfg)
    options = {"fold_biases": fold_biases, "center_weights": center_weights}
    found = processing.fold_layer_norm(weights_of(state, cfg), cfg, **options).state_dict()
    assert ("ln_final.b" in found) == (not fold_biases) and "ln_final.w" not in found
    matrix = state["unembed.W_U"] * state["ln_final.w"][:, None]
    expected = matrix - matrix.mean(0) if center_weights else matrix
    torch.testing.assert_close(found["unembed.W_U"], expected)
    assert torch.equal(found["unembed.b_U"], state["unembed.b_U"]) == (not fold_biases)


def normalised(x, kind):
    x = x - x.mean(-1, keepdim=True) if kind == "LN" else x
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()


def kind_of(norm, cfg):
    """The formula of the norm that ends in a name, folded or not."""
    found = [one.kind for name, one, _ in anatomy.model_of(cfg).readers() if name.endswith(norm)]
    return found[0] if found else None


def read_through(state, cfg, prefix, norm, matrix, x):
    """What a matrix reads of a residual stream through its norm, folded or not."""
    kind = kind_of(norm, cfg)
    x = normalised(x, kind) * state.get(f"{prefix}{norm}.w", 1.0) + state.get(f"{prefix}{norm}.b", 0.0)
    weight = state[prefix + matrix]
    out = torch.tensordot(x, weight, dims=([-1], [weight.ndim - 2]))
    bias = state.get(prefix + matrix.replace("W_", "b_"), torch.zeros(()))
    return out + bias


@given(
    st.sampled_from(["gpt2", "square", "gated_layer_norm", "sandwich_layer_norm", "sandwich", "final_rms", "llama"]),
    st.booleans(),
    st.sampled_from(["", "Pre"]),
    st.integers(0, 99),
)
def test_folding_is_exact_with_and_without_biases_of_norms(kind, biased, suffix, seed):
    """``x W`` stays what it is in float64; only behind norms that take the mean away is a folded matrix centred."""
    cfg = config(kind)
    state = random_state(cfg, seed=seed)
    if not biased:
        state = {name: tensor for name, tensor in state.items() if not name.endswith(("ln1.b", "ln2.b", "ln_final.b"))}
    layouts = schema(cfg)
    weights = Weights({name: promise(tensor, layout=layouts[name]) for name, tensor in state.items()})
    # The config may say already what the model will be.
    named = config(kind, normalization_type=cfg.normalization_type + suffix)
    result = processing.fold_layer_norm(weights, named).state_dict()
    x = torch.randn(5, cfg.d_model, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.7
    places = [("", "ln_final", "unembed.W_U")]
    for layer in range(cfg.n_layers):
        block = f"blocks.{layer}."
        places += [(block, "ln1", f"attn.{leaf}") for leaf in ("W_Q", kv(cfg, "W_K"), kv(cfg, "W_V"))]
        places += [(block, "ln2", "mlp.W_in")] + [(block, "ln2", "mlp.W_gate")] * cfg.gated_mlp
    for prefix, norm, matrix in places:
        before = read_through(state, cfg, prefix, norm, matrix, x)
        after = read_through(result, cfg, prefix, norm, matrix, x)
        torch.testing.assert_close(after, before, rtol=1e-11, atol=1e-11)
        mean = result[prefix + matrix].mean(-2).abs().max()
        assert (mean < 1e-13) == (kind_of(norm, cfg) == "LN"), (prefix, norm, matrix)
        assert not {f"{prefix}{norm}.w", f"{prefix}{norm}.b"} & set(result)
    for name in state:
        if "_post" in name:
            assert result[name] is state[name]
