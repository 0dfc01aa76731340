"""Upstream's own formats: config.json of its fields and a file of torch.save, against their mathematics."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.loading import get_checkpoint_labels
from transformer_lens.loading.errors import (
    CorruptCheckpointError,
    LayoutMismatchError,
    UnexpectedTensorError,
    UnhandledConfigError,
    UnknownModelError,
)
from transformer_lens.loading_from_pretrained import convert_mingpt_weights, convert_neel_solu_old_weights

SIZES = {"d_model": 24, "n_layers": 2, "n_heads": 3, "d_head": 8, "d_mlp": 40, "n_ctx": 17, "d_vocab": 29}
# Of a run, and of no reader: what configs of trained models carry beside.
RUN = {"lr_max": 1e-3, "batch_size_per_device": 32, "debug": False, "train_loss_ewma_beta": 0.99, "seed": 10}
SOLU = {**SIZES, **RUN, "act_fn": "solu_ln", "attn_only": False, "normalization": "LN"}
CONFIGS = {
    "solu": SOLU,
    "gelu-final-rms": {**SOLU, "act_fn": "gelu", "final_rms": True, "shortformer_pos": False},
    "attn-only": {**SOLU, "attn_only": True, "d_mlp": 96},
    "shortformer": {**SOLU, "attn_only": True, "shortformer_pos": True},
    "solu-three-layers": {**SOLU, "n_layers": 3, "architecture": "neel"},
    "tracr": {**SIZES, "act_fn": "relu", "normalization_type": None, "attention_dir": "bidirectional",
              "d_vocab_out": 11, "attn_only": False},
    "saved-config": {**SIZES, "act_fn": "gelu", "normalization_type": "RMS", "positional_embedding_type": "rotary",
                     "rotary_dim": 4, "n_key_value_heads": 1, "gated_mlp": True, "eps": 1e-3,
                     "original_architecture": "mine", "init_weights": True, "use_attn_result": False},
}  # fmt: skip
TOKENS = torch.arange(22).reshape(2, 11) * 7 % 29


def config_of(config: dict) -> HookedTransformerConfig:
    """Our config of the same model."""
    skipped = {*RUN, "normalization", "shortformer_pos", "architecture"}
    fields = {name: value for name, value in config.items() if name not in skipped}
    if config.get("shortformer_pos"):
        fields["positional_embedding_type"] = "shortformer"
    return HookedTransformerConfig(**fields, device="cpu")


def weights_of(config: dict, std: float = 0.3) -> dict[str, torch.Tensor]:
    """Random weights in upstream's names and shapes."""
    model = HookedTransformer(config_of(config))
    generator = torch.Generator().manual_seed(1)
    out = {name: torch.randn(p.shape, generator=generator) * std for name, p in model.named_parameters()}
    for name in out:
        if name.endswith(".w"):
            out[name] += 1
    return out


def norm(x, state, name, kind, eps=1e-5):
    if kind is None:
        return x
    x = x - x.mean(-1, keepdim=True) if kind == "LN" else x
    x = x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * state[f"{name}.w"]
    return x + state[f"{name}.b"] if kind == "LN" else x


def by_mathematics(config: dict, state: dict[str, torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
    """The logits of a model whose positions are learned."""
    kind = config.get("normalization", config.get("normalization_type", "LN"))
    act = {"solu_ln": lambda x: x * x.softmax(-1), "gelu": F.gelu, "relu": F.relu}[config["act_fn"]]
    length = tokens.shape[1]
    causal = torch.ones(length, length).triu(1).bool() & (config.get("attention_dir") != "bidirectional")
    positions = state["pos_embed.W_pos"][:length]
    x = state["embed.W_E"][tokens] + (0 if config.get("shortformer_pos") else positions)
    for layer in range(config["n_layers"]):
        at = {name.removeprefix(f"blocks.{layer}."): value for name, value in state.items()}
        read = norm(x, at, "ln1", kind)
        turned = read + positions if config.get("shortformer_pos") else read
        q = torch.einsum("bpm,hmd->bhpd", turned, at["attn.W_Q"]) + at["attn.b_Q"][:, None]
        k = torch.einsum("bpm,hmd->bhpd", turned, at["attn.W_K"]) + at["attn.b_K"][:, None]
        v = torch.einsum("bpm,hmd->bhpd", read, at["attn.W_V"]) + at["attn.b_V"][:, None]
        scores = (q @ k.transpose(-1, -2) / config["d_head"] ** 0.5).masked_fill(causal, -torch.inf)
        x = x + torch.einsum("bhpd,hdm->bpm", scores.softmax(-1) @ v, at["attn.W_O"]) + at["attn.b_O"]
        if not config["attn_only"]:
            hidden = act(norm(x, at, "ln2", kind) @ at["mlp.W_in"] + at["mlp.b_in"])
            if config["act_fn"].endswith("_ln"):
                hidden = norm(hidden, at, "mlp.ln", "LN")
            x = x + hidden @ at["mlp.W_out"] + at["mlp.b_out"]
    x = norm(x, state, "ln_final", "RMS" if config.get("final_rms") else kind)
    return x @ state["unembed.W_U"] + state["unembed.b_U"]


def write(folder: Path, config: dict, state: dict[str, torch.Tensor], name: str = "model_final.pth") -> str:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save({key: tensor.clone() for key, tensor in state.items()}, folder / name)
    return str(folder)


@torch.no_grad()
def assert_same(model: HookedTransformer, expected: torch.Tensor) -> None:
    assert (model(TOKENS).log_softmax(-1) - expected.log_softmax(-1)).abs().max() < 1e-4


RAW_AND_PROCESSED = pytest.mark.parametrize("load", ["from_pretrained_no_processing", "from_pretrained"])


@RAW_AND_PROCESSED
@pytest.mark.parametrize("name", CONFIGS)
def test_models_in_upstreams_names(name, load, tmp_path):
    config = CONFIGS[name]
    state = weights_of(config)
    model = getattr(HookedTransformer, load)(write(tmp_path, config, state), device="cpu")
    if name == "saved-config":
        fields = {key: value for key, value in config.items() if key != "original_architecture"}
        reference = HookedTransformer(HookedTransformerConfig(**fields, device="cpu"))
        reference.load_state_dict(state)
        expected = reference(TOKENS)
    else:
        expected = by_mathematics(config, state, TOKENS)
    assert_same(model, expected)
    assert model.cfg.original_architecture == "neel"
    if load == "from_pretrained_no_processing":
        assert all(torch.equal(dict(model.named_parameters())[key], tensor) for key, tensor in state.items())
    if name == "shortformer":
        assert dict(model.load_report.skipped).get("fold_ln") or load != "from_pretrained"


def old(state: dict[str, torch.Tensor], n_layers: int) -> dict[str, torch.Tensor]:
    """The names and axes of the older SoLU models."""
    out = {}
    for name, tensor in state.items():
        if "W_" in name and (n_layers <= 8 if "W_pos" in name else n_layers <= 6):
            tensor = tensor.transpose(-1, -2)
        out[name.replace("ln_final", "norm").replace("ln1", "norm1").replace("ln2", "norm2")] = tensor.contiguous()
    return out


@pytest.mark.parametrize("n_layers", [2, 8, 10])
def test_older_solu_models_by_the_name_of_their_repository(n_layers, tmp_path):
    config = {**SOLU, "n_layers": n_layers}
    state = weights_of(config)
    folder = write(tmp_path / "SoLU_v9_old", config, old(state, n_layers))
    for load in (HookedTransformer.from_pretrained_no_processing, HookedTransformer.from_pretrained):
        model = load(folder, device="cpu")
        assert model.cfg.original_architecture == "neel-solu-old"
        assert_same(model, by_mathematics(config, state, TOKENS))
    converted = convert_neel_solu_old_weights(old(state, n_layers), config_of(config))
    assert all(torch.equal(converted[name], tensor) for name, tensor in state.items())
    cut = HookedTransformer.from_pretrained_no_processing(folder, device="cpu", first_n_layers=1)
    assert torch.equal(cut.W_in[0], state["blocks.0.mlp.W_in"])


def test_older_models_under_another_name_do_not_fit(tmp_path):
    config = {**SOLU, "n_layers": 2}
    state = {name.replace("norm1", "ln1").replace("norm2", "ln2").replace("norm.", "ln_final."): tensor
             for name, tensor in old(weights_of(config), 2).items()}  # fmt: skip
    with pytest.raises(LayoutMismatchError, match="upstream_formats.py"):
        HookedTransformer.from_pretrained(write(tmp_path / "renamed", config, state), device="cpu")
    named = {**config, "architecture": "neel-solu-old"}
    model = HookedTransformer.from_pretrained(write(tmp_path / "renamed", named, state), device="cpu")
    assert_same(model, by_mathematics(config, weights_of(config), TOKENS))


@RAW_AND_PROCESSED
def test_mingpt(load, tmp_path):
    config = {**SOLU, "act_fn": "gelu", "architecture": "mingpt"}
    state = weights_of(config)
    state["unembed.b_U"] = torch.zeros(29)
    theirs = {
        "tok_emb.weight": state["embed.W_E"], "pos_emb": state["pos_embed.W_pos"][None],
        "ln_f.weight": state["ln_final.w"], "ln_f.bias": state["ln_final.b"], "head.weight": state["unembed.W_U"].T,
    }  # fmt: skip
    for i in range(2):
        at = f"blocks.{i}."
        for norm_name in ("ln1", "ln2"):
            theirs[f"{at}{norm_name}.weight"], theirs[f"{at}{norm_name}.bias"] = (
                state[f"{at}{norm_name}.w"], state[f"{at}{norm_name}.b"],
            )  # fmt: skip
        for name in ("query", "key", "value"):
            letter = name[0].upper()
            theirs[f"{at}attn.{name}.weight"] = state[f"{at}attn.W_{letter}"].permute(0, 2, 1).reshape(24, 24)
            theirs[f"{at}attn.{name}.bias"] = state[f"{at}attn.b_{letter}"].reshape(24)
        theirs[f"{at}attn.proj.weight"] = state[f"{at}attn.W_O"].reshape(24, 24).T
        theirs[f"{at}attn.proj.bias"] = state[f"{at}attn.b_O"]
        theirs[f"{at}attn.mask"] = torch.ones(1, 1, 17, 17).tril()
        for place, leaf in ((0, "in"), (2, "out")):
            theirs[f"{at}mlp.{place}.weight"] = state[f"{at}mlp.W_{leaf}"].T
            theirs[f"{at}mlp.{place}.bias"] = state[f"{at}mlp.b_{leaf}"]
    theirs = {name: tensor.contiguous() for name, tensor in theirs.items()}
    model = getattr(HookedTransformer, load)(write(tmp_path, config, theirs, "synthetic_final.pth"), device="cpu")
    assert_same(model, by_mathematics(config, state, TOKENS))
    assert model.cfg.original_architecture == "mingpt" and len(model.load_report.dropped) == 2
    converted = convert_mingpt_weights(theirs, config_of(config))
    assert all(torch.equal(converted[name], tensor) for name, tensor in state.items())


@pytest.fixture
def series(tmp_path):
    """A folder with a final model and three checkpoints, whose names sort otherwise than their labels."""
    config = CONFIGS["attn-only"]
    states = {label: weights_of(config, std) for label, std in ((900, 0.1), (1000, 0.2), (20000, 0.25))}
    for label, state in states.items():
        write(tmp_path, config, state, f"checkpoints/run_{label}.pth")
    return write(tmp_path, config, weights_of(config)), config, states


def test_training_checkpoints_in_files(series):
    folder, config, states = series
    assert get_checkpoint_labels(folder) == ([900, 1000, 20000], "step")
    for index, (label, state) in enumerate(states.items()):
        for which in ({"checkpoint_index": index}, {"checkpoint_value": label}, {"checkpoint_index": index - 3}):
            model = HookedTransformer.from_pretrained(folder, device="cpu", **which)
            assert_same(model, by_mathematics(config, state, TOKENS))
            cfg = model.cfg
            assert (cfg.from_checkpoint, cfg.checkpoint_index, cfg.checkpoint_value) == (True, index, label)
    assert_same(
        HookedTransformer.from_pretrained(folder, device="cpu"), by_mathematics(config, weights_of(config), TOKENS)
    )
    with pytest.raises(UnknownModelError, match="no checkpoint at step 950; the nearest are 900, 1000"):
        HookedTransformer.from_pretrained(folder, device="cpu", checkpoint_value=950)


def test_labels_of_tokens(series):
    folder, config, states = series
    write(Path(folder), config, states[900], "checkpoints/run_2000000000.pth")
    assert get_checkpoint_labels(folder)[1] == "token"
    model = HookedTransformer.from_pretrained(folder, device="cpu", checkpoint_value=2 * 10**9)
    assert model.cfg.checkpoint_label_type == "token"


def test_by_alias_from_the_hubs_cache(series, tmp_path):
    folder, config, states = series
    home = tmp_path / "cache" / "models--NeelNanda--Attn_Only_2L512W_C4_Code"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("a" * 40)
    (home / "snapshots").mkdir()
    snapshot = home / "snapshots" / ("a" * 40)
    for name in ("config.json", "model_final.pth", *(f"checkpoints/run_{label}.pth" for label in states)):
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_bytes((Path(folder) / name).read_bytes())
    where = {"cache_dir": str(tmp_path / "cache"), "local_files_only": True}
    model = HookedTransformer.from_pretrained("attn-only-2l", device="cpu", **where)
    assert_same(model, by_mathematics(config, weights_of(config), TOKENS))
    model = HookedTransformer.from_pretrained("attn-only-2l", device="cpu", checkpoint_value=1000, **where)
    assert_same(model, by_mathematics(config, states[1000], TOKENS))
    assert get_checkpoint_labels("attn-only-2l", **where) == ([900, 1000, 20000], "step")


def test_the_tokenizer_that_a_config_names_is_no_path(tmp_path):
    """It is looked for in the hub's cache alone, and the model loads without it, with a warning."""
    config = {**CONFIGS["attn-only"], "tokenizer_name": str(tmp_path)}
    (tmp_path / "tokenizer.json").write_text("{}")
    folder = write(tmp_path / "model", config, weights_of(CONFIGS["attn-only"]))
    with pytest.warns(UserWarning, match="The model has no tokenizer"):
        model = HookedTransformer.from_pretrained(folder, device="cpu")
    assert model.tokenizer is None


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"use_qk_norm": True}, UnhandledConfigError, "use_qk_norm = True"),
        ({"act_fn": "swoosh"}, UnhandledConfigError, "act_fn = 'swoosh'"),
        ({"normalization": "Batch"}, UnhandledConfigError, "normalization = 'Batch'"),
        ({"n_heads": "3"}, CorruptCheckpointError, "n_heads = '3' is not a whole number"),
        ({"attn_types": ["global"]}, CorruptCheckpointError, "attn_types"),
        ({"act_fn": "gelu"}, UnexpectedTensorError, "mlp.ln.w"),
    ],
)
def test_what_does_not_fit_is_refused(fields, error, words, tmp_path):
    folder = write(tmp_path, {**SOLU, **fields}, weights_of(SOLU))
    with pytest.raises(error, match=words):
        HookedTransformer.from_pretrained(folder, device="cpu")


def test_two_final_files_are_one_too_many(tmp_path):
    folder = write(tmp_path, SOLU, weights_of(SOLU))
    write(tmp_path, SOLU, weights_of(SOLU), "other_final.pth")
    with pytest.raises(CorruptCheckpointError, match="model_final.pth and other_final.pth: which one"):
        HookedTransformer.from_pretrained(folder, device="cpu")
