"""Weights of one's own: nanoGPT checkpoints and state dicts in our names, from memory and from files."""

import copy

import pytest
import torch

from tests.fallback import may_fall_back
from tests.tiny_models import VARIANTS, Variant, make_model
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.loading.errors import (
    CorruptCheckpointError,
    LayoutMismatchError,
    MissingTensorError,
    UnexpectedTensorError,
    UnknownModelError,
)
from transformer_lens.loading.loaders import can_assign
from transformer_lens.loading.weights import bytes_of
from transformer_lens.pretrained.weight_conversions import convert_nanogpt_weights

TOKENS = torch.arange(26).reshape(2, 13) * 7 % 113
ARGS = {"n_layer": 2, "n_head": 6, "n_embd": 48, "block_size": 64, "vocab_size": 113, "dropout": 0.0}
CFG = {
    "n_layers": 2, "n_heads": 6, "d_model": 48, "d_head": 8, "n_ctx": 64, "d_vocab": 113, "act_fn": "gelu",
    "normalization_type": "LN", "device": "cpu",
}  # fmt: skip
FOLDED = dict.fromkeys(("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases"), True)
BIASES = pytest.mark.parametrize("biased", [True, False], ids=["biases", "no-biases"])


def reference(biased: bool):
    """GPT-2 of transformers with the activation of nanoGPT: the same function of transposed matrices."""
    base = VARIANTS["gpt2"]
    model = make_model(Variant(base.config_class, {**base.settings, "activation_function": "gelu"}))
    if not biased:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith(".bias"):
                    parameter.zero_()
    return model


def nanogpt(model, biased: bool, prefix: str = "") -> dict[str, torch.Tensor]:
    """The state dict that nanoGPT's own class would have."""
    out = {}
    for name, tensor in model.state_dict().items():
        turned = any(part in name for part in ("c_attn.weight", "c_proj.weight", "c_fc.weight"))
        if biased or not name.endswith(".bias"):
            out[prefix + name] = tensor.t().contiguous() if turned else tensor
    out[f"{prefix}lm_head.weight"] = out[f"{prefix}transformer.wte.weight"]
    return out


@torch.no_grad()
def assert_same(model: HookedTransformer, theirs) -> None:
    ours = model(TOKENS).log_softmax(-1)
    assert (ours - theirs(TOKENS).logits.log_softmax(-1)).abs().max() < 1e-4


# -- nanoGPT ---------------------------------------------------------------------------------------------------------


@BIASES
@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
@pytest.mark.parametrize("flags", [{}, FOLDED], ids=["raw", "processed"])
def test_a_run_checkpoint_brings_its_own_config(biased, prefix, flags, tmp_path):
    theirs = reference(biased)
    state = nanogpt(theirs, biased, prefix)
    trainee = copy.deepcopy(theirs)
    optimizer = torch.optim.AdamW(trainee.parameters())
    trainee(TOKENS).logits.sum().backward()
    optimizer.step()
    run = {
        "model": state,
        "optimizer": optimizer.state_dict(),
        "model_args": {**ARGS, "bias": biased},
        "iter_num": 2000,
        "best_val_loss": torch.tensor(1.25),
        "config": {"out_dir": "out", "learning_rate": 6e-4, "compile": True, "init_from": None},
    }
    state_before = {name: tensor.clone() for name, tensor in state.items()}
    torch.save(run, tmp_path / "ckpt.pt")
    for given in (tmp_path / "ckpt.pt", run):
        model = HookedTransformer.from_state_dict(given, **flags, device="cpu")
        assert_same(model, theirs)
        assert model.cfg.n_ctx == 64 and model.cfg.act_fn == "gelu"
        assert ("blocks.0.attn.b_Q" in model.load_report.zero_filled) is not biased
    assert all(torch.equal(tensor, state_before[name]) for name, tensor in state.items())


@BIASES
def test_conversion_is_views_in_our_names(biased):
    theirs = reference(biased)
    state = nanogpt(theirs, biased, "_orig_mod.")
    names = list(state)
    cfg = HookedTransformerConfig(**CFG)
    converted = convert_nanogpt_weights(state, cfg)
    assert list(state) == names
    addresses = {tensor.untyped_storage().data_ptr() for tensor in state.values()}
    for name, tensor in converted.items():
        if biased or ".b" not in name:
            assert name == "unembed.b_U" or tensor.untyped_storage().data_ptr() in addresses, name
        else:
            assert not tensor.any(), name
    model = HookedTransformer(cfg)
    assert set(converted) == {name for name, _ in model.named_parameters()}
    model.load_and_process_state_dict(converted)
    assert_same(model, theirs)


def test_norms_are_not_lost_where_the_config_says_that_there_are_none():
    theirs = reference(True)
    state = nanogpt(theirs, True)
    cfg = HookedTransformerConfig(**{**CFG, "normalization_type": "LNPre"})
    model = HookedTransformer(cfg)
    model.load_and_process_state_dict(convert_nanogpt_weights(state, cfg))
    assert_same(model, theirs)
    with pytest.raises(ValueError, match="they would be lost"):
        model.load_and_process_state_dict(convert_nanogpt_weights(state, cfg), fold_ln=False)
    with pytest.raises(ValueError, match="they would be lost"):
        HookedTransformer.from_state_dict(state, cfg)
    again = HookedTransformer.from_state_dict(state, cfg, fold_ln=True)
    assert again.cfg.normalization_type == "LNPre" and cfg.normalization_type == "LNPre"
    assert_same(again, theirs)


def test_padded_vocabulary_is_kept_and_a_smaller_one_is_told():
    state = nanogpt(reference(True), True)
    model = HookedTransformer.from_state_dict({"model": state, "model_args": {**ARGS, "bias": True}})
    assert model.W_U.shape[1] == 113
    with pytest.raises(LayoutMismatchError, match="d_vocab is 100, d_model is 48 by config;") as found:
        HookedTransformer.from_state_dict(state, {**CFG, "d_vocab": 100})
    assert "architectures/nanogpt.py" in str(found.value)


def test_all_biases_or_none():
    state = nanogpt(reference(True), True)
    del state["transformer.h.1.mlp.c_fc.bias"]
    with pytest.raises(MissingTensorError, match="transformer.h.1.mlp.c_fc.bias"):
        HookedTransformer.from_state_dict(state, CFG)
    state = nanogpt(reference(False), False) | {"transformer.h.1.mlp.c_fc.bias": torch.ones(192)}
    with pytest.raises(UnexpectedTensorError, match="transformer.h.1.mlp.c_fc.bias"):
        HookedTransformer.from_state_dict(state, CFG)


def test_masks_of_old_runs_are_dropped_by_name():
    masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 64, 64) for i in range(2)}
    model = HookedTransformer.from_state_dict(nanogpt(reference(True), True) | masks, CFG)
    assert model.load_report.dropped == dict.fromkeys(masks, "a causal mask, computed here")


def test_matrices_of_conv1d_are_told():
    with pytest.raises(LayoutMismatchError, match="c_attn"):
        HookedTransformer.from_state_dict(reference(True).state_dict(), CFG)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"n_head": 7}, "n_embd = 48 is not a multiple of n_head = 7"),
        ({"n_layer": "two"}, "model_args of .*: n_layer = 'two' is not a whole number"),
    ],
)
def test_model_args_are_checked(args, words):
    with pytest.raises(CorruptCheckpointError, match=words):
        HookedTransformer.from_state_dict({"model": nanogpt(reference(True), True), "model_args": {**ARGS, **args}})


# -- our own names ---------------------------------------------------------------------------------------------------

CONFIGS = {
    "standard": CFG,
    "rms-gqa-rotary": {
        **CFG, "normalization_type": "RMS", "positional_embedding_type": "rotary", "n_key_value_heads": 2,
        "gated_mlp": True, "act_fn": "silu", "rotary_dim": 8, "final_rms": True,
    },
    "attention-only": {**CFG, "attn_only": True, "act_fn": None},
    "solu": {**CFG, "act_fn": "solu_ln"},
    "no-norm": {**CFG, "normalization_type": None},
    "shortformer": {**CFG, "positional_embedding_type": "shortformer"},
    "alibi": {**CFG, "positional_embedding_type": "alibi"},
    "embedding-norm": {**CFG, "post_embedding_ln": True},
    "square": {**CFG, "d_mlp": 48, "d_vocab": 48, "n_ctx": 48},
}  # fmt: skip


def trained(cfg) -> HookedTransformer:
    model = HookedTransformer(HookedTransformerConfig(**cfg, seed=3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def save(state: dict, folder, form: str):
    from safetensors.torch import save_file

    if form == "safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
        return folder / "model.safetensors"
    if form == "folder":
        torch.save(state, folder / "pytorch_model.bin")
        return folder
    torch.save(state, folder / f"mine.{form}")
    return folder / f"mine.{form}"


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("form", ["dict", "pt", "bin", "safetensors", "folder"])
@torch.no_grad()
def test_a_saved_model_comes_back(kind, form, tmp_path):
    model = trained(CONFIGS[kind])
    state = model.state_dict()
    given = state if form == "dict" else save(state, tmp_path, form)
    cfg_before = repr(model.cfg)
    again = HookedTransformer.from_state_dict(given, model.cfg)
    assert repr(model.cfg) == cfg_before and again.cfg is not model.cfg
    tokens = TOKENS % model.cfg.d_vocab
    assert all(torch.equal(p, model.get_parameter(name)) for name, p in again.named_parameters())
    # The same numbers, at addresses that a matrix product may take in another order.
    torch.testing.assert_close(again(tokens), model(tokens), atol=1e-5, rtol=1e-5)
    assert {name: p.shape for name, p in again.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    report = again.load_report
    assert set(report.read) == {name for name, _ in model.named_parameters()} and not report.zero_filled
    own = sum(map(bytes_of, model.parameters()))
    held = {"allocated": report.bytes_allocated, "borrowed": report.bytes_borrowed, "mapped": report.bytes_mapped}
    how = "allocated" if not can_assign() else "borrowed" if form == "dict" else "mapped"
    assert held == {**dict.fromkeys(held, 0), how: own}


@torch.no_grad()
def test_assign_shares_the_dict_and_copy_does_not():
    state = trained(CFG).state_dict()
    with may_fall_back("assign"):
        shared = HookedTransformer.from_state_dict(state, CFG, load_mode="assign")
    apart = HookedTransformer.from_state_dict(state, CFG, load_mode="copy")
    for name, tensor in state.items():
        assert (dict(shared.named_parameters())[name].data_ptr() == tensor.data_ptr()) == can_assign()
        assert dict(apart.named_parameters())[name].data_ptr() != tensor.data_ptr()
    before = {name: tensor.clone() for name, tensor in state.items()}
    folded = HookedTransformer.from_state_dict(state, CFG, **FOLDED)
    assert (folded(TOKENS).log_softmax(-1) - shared(TOKENS).log_softmax(-1)).abs().max() < 1e-4
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.items())


@torch.no_grad()
def test_a_processed_model_comes_back_and_is_not_processed_again(tmp_path):
    model = trained(CFG)
    model.process_weights_()
    again = HookedTransformer.from_state_dict(save(model.state_dict(), tmp_path, "pt"), model.cfg)
    assert again.cfg.normalization_type == "LNPre"
    assert again.load_report.bytes_allocated == (0 if can_assign() else sum(map(bytes_of, model.parameters())))
    assert torch.equal(again(TOKENS), model(TOKENS))


def test_dtype_is_the_configs_or_the_dicts_or_the_one_asked_for():
    state = {name: tensor.to(torch.bfloat16) for name, tensor in trained(CFG).state_dict().items()}
    assert HookedTransformer.from_state_dict(state, CFG).W_E.dtype is torch.float32
    assert HookedTransformer.from_state_dict(state, CFG, dtype="auto").W_E.dtype is torch.bfloat16
    assert HookedTransformer.from_state_dict(state, CFG, dtype="float64").cfg.dtype is torch.float64


def test_buffers_of_upstream_and_wrappers_are_known():
    state = trained(CFG).state_dict()
    old = {
        **state,
        "blocks.0.attn.mask": torch.ones(64, 64, dtype=torch.bool),
        "blocks.1.attn.IGNORE": torch.tensor(-1e5),
    }
    model = HookedTransformer.from_state_dict({f"module._orig_mod.{name}": tensor for name, tensor in old.items()}, CFG)
    assert set(model.load_report.dropped) == {"blocks.0.attn.mask", "blocks.1.attn.IGNORE"}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda state: state.pop("blocks.1.mlp.b_in"), MissingTensorError, r"blocks\.1\.mlp\.b_in"),
        (lambda state: state.update(more=torch.ones(3)), UnexpectedTensorError, "more"),
        (lambda state: state.update({"embed.W_E": torch.ones(113, 47)}), LayoutMismatchError, "113, 47"),
        (lambda state: state.update({"blocks.2.ln1.w": torch.ones(48)}), UnexpectedTensorError, "more layers than"),
        (lambda state: state.update(steps=3), UnexpectedTensorError, "'steps', which is a int"),
        (lambda state: state.pop("embed.W_E"), MissingTensorError, "neither 'embed.W_E'"),
        (lambda state: state.clear(), MissingTensorError, "neither 'embed.W_E'"),
    ],
)  # fmt: skip
def test_every_name_is_accounted_for(change, error, words):
    state = dict(trained(CFG).state_dict())
    change(state)
    with pytest.raises(error, match=words):
        HookedTransformer.from_state_dict(state, CFG)


def test_what_is_left_open_is_asked_for(tmp_path):
    state = trained(CFG).state_dict()
    with pytest.raises(ValueError, match="give its HookedTransformerConfig"):
        HookedTransformer.from_state_dict(state)
    with pytest.raises(ValueError, match="cfg.d_vocab is not set; embed.W_E of the state dict has 113 rows"):
        HookedTransformer.from_state_dict(state, {**CFG, "d_vocab": -1})
    with pytest.raises(UnknownModelError, match="no such file or folder"):
        HookedTransformer.from_state_dict(tmp_path / "nothing.pt", CFG)
    torch.save({"model": state, "state_dict": state}, tmp_path / "two.pt")
    with pytest.raises(CorruptCheckpointError, match="which one is the state dict"):
        HookedTransformer.from_state_dict(tmp_path / "two.pt", CFG)


def test_a_subclass_stays_what_it_is():
    class Mine(HookedTransformer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.added = torch.nn.Linear(3, 5)

    model = Mine.from_state_dict(trained(CFG).state_dict(), CFG)
    assert type(model) is Mine and model.added.weight.device.type == "cpu"
