"""``verify`` agrees on right models and names the block of an injected error."""

import pytest
import torch

from benchmarks.memory import can_measure, measure
from tests.tiny_models import FAMILIES, VARIANTS, Variant, first_of, make_model, save
from transformer_lens import HookedTransformer, loading
from transformer_lens.loading.architectures.gpt2 import GPT2
from transformer_lens.loading.conversion import Take

WITH_REFERENCE = [name for name, variant in VARIANTS.items() if variant.why_no_reference() is None]
NAMES = [name for name in map(first_of, FAMILIES) if name in WITH_REFERENCE]


@pytest.mark.parametrize("name", NAMES)
def test_right_models_agree(name, tmp_path, capsys):
    save(VARIANTS[name], tmp_path)
    result = loading.verify(tmp_path)
    assert result.holds, str(result)
    assert "all agree" in capsys.readouterr().out
    processed = HookedTransformer.from_pretrained(tmp_path, device="cpu")
    assert loading.verify(processed, show=False).holds
    live = make_model(VARIANTS[name])
    borrowed = HookedTransformer.from_pretrained(hf_model=live, device="cpu")
    assert loading.verify(borrowed, hf_model=live, show=False).holds


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("processed", [False, True], ids=["raw", "processed"])
@torch.no_grad()
def test_permuted_head_is_found(name, processed, tmp_path):
    save(VARIANTS[name], tmp_path)
    load = HookedTransformer.from_pretrained if processed else HookedTransformer.from_pretrained_no_processing
    model = load(tmp_path, device="cpu")
    parameters = dict(model.named_parameters())
    keys = parameters.get("blocks.1.attn._W_K", parameters.get("blocks.1.attn.W_K"))
    keys.copy_(keys.roll(1, dims=2))
    assert loading.verify(model, show=False).first_disagreement == "blocks.1"


@pytest.mark.parametrize("name", NAMES)
def test_changed_epsilon_is_found(name, tmp_path):
    save(VARIANTS[name], tmp_path)
    model = HookedTransformer.from_pretrained_no_processing(tmp_path, device="cpu")
    model.blocks[1].ln2.eps = 1.0
    assert loading.verify(model, show=False).first_disagreement == "blocks.1"


def test_model_without_origin_is_refused():
    model = HookedTransformer.from_pretrained(hf_model=make_model(VARIANTS["gpt2"]), device="cpu")
    with pytest.raises(loading.LoadingError, match="does not say where it came from"):
        loading.verify(model)


# -- one block at a time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_every_variant_is_streamed(name, tmp_path):
    """But where transformers' model has what the file has not: experts in one tensor, a tower that is no decoder's."""
    result = loading.verify(save(VARIANTS[name], tmp_path), show=False)
    assert result.holds, str(result)
    if VARIANTS[name].settings.keys() & {"vision_config", "num_experts_per_tok", "moe_k", "moe_topk"}:
        assert all(note.startswith("transformers' model was loaded as a whole") for note in result.notes)
    else:
        assert result.notes == (), str(result)


def test_a_wrong_table_is_found_and_the_weights_are_gone_afterwards(tmp_path, monkeypatch):
    save(VARIANTS["gpt2"], tmp_path)
    keys = GPT2.block["attn.W_K"]
    monkeypatch.setitem(GPT2.block, "attn.W_K", Take(keys.key, "d_model (qkv d_head kv_head)", pick={"qkv": 1}))
    result = loading.verify(tmp_path, show=False)
    assert result.first_disagreement == "blocks.0" and [row.holds for row in result.rows if row.name == "embed"] == [
        True
    ]


@pytest.mark.parametrize("name", ["gpt2", "llama-tied"])
def test_a_checkpoint_in_bfloat16_is_compared_in_float32(name, tmp_path):
    save(VARIANTS[name], tmp_path, torch.bfloat16)
    assert loading.verify(tmp_path, show=False).holds


def test_fewer_layers_are_compared_with_as_many(tmp_path):
    save(VARIANTS["qwen2-windows"], tmp_path)
    model = HookedTransformer.from_pretrained_no_processing(tmp_path, device="cpu", first_n_layers=3)
    result = loading.verify(model, show=False)
    assert result.holds and result.rows[-2].name.startswith("blocks.2"), str(result)


def test_what_transformers_holds_otherwise_is_loaded_whole_and_said(tmp_path, monkeypatch, capsys):
    from transformer_lens.verification import transformers_side

    save(VARIANTS["llama-gqa"], tmp_path)
    known = transformers_side._keys
    monkeypatch.setattr(transformers_side, "_keys", lambda name, *rest: () if "k_proj" in name else known(name, *rest))
    result = loading.verify(tmp_path)
    assert result.holds and result.notes == (
        "transformers' model was loaded as a whole: the checkpoint has no tensor for transformers' "
        "model.layers.0.self_attn.k_proj.weight",
    )
    assert f"note: {result.notes[0]}" in capsys.readouterr().out


def test_config_names_no_code_to_transformers(tmp_path, network_attempts):
    import json

    save(VARIANTS["llama-gqa"], tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"auto_map": {"AutoModelForCausalLM": "evil--x.Model"}, "_attn_implementation": "someone/kernel"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert loading.verify(tmp_path, show=False).holds and not network_attempts


LAYERS, WIDTH = 10, 768
BLOCK = 12 * WIDTH * WIDTH * 4


def verified(folder):
    import transformers.models.gpt2.modeling_gpt2

    from transformer_lens import loading

    torch.set_num_threads(1)
    assert transformers
    return lambda: loading.verify(folder, tokens=torch.arange(32).reshape(2, 16), show=False)


def outcome(result):
    return [result.holds, list(result.notes)]


@pytest.mark.skipif(not can_measure(), reason="this system does not say how much memory is private")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bfloat16", "float32"])
def test_peak_is_about_a_block(dtype, tmp_path):
    sizes = {"n_embd": WIDTH, "n_head": 12, "n_layer": LAYERS, "vocab_size": 997, "n_positions": 64}
    save(Variant("GPT2Config", sizes), tmp_path, dtype, std=0.02)
    measured = measure(f"{__file__}:verified", str(tmp_path), after="outcome")
    assert measured.facts == [True, []]
    # Both models whole would be twenty blocks where the file is in bfloat16.
    assert measured.peak < (2 if dtype is torch.bfloat16 else 1) * BLOCK, measured
