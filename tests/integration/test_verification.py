"""``verify`` agrees on right models and names the block of an injected error."""

import pytest
import torch

from tests.tiny_models import VARIANTS, make_model, save
from transformer_lens import HookedTransformer, loading

NAMES = ["gpt2", "gpt-neox", "gpt-neox-serial", "llama-gqa", "mistral", "qwen2-windows", "phi3-mini"]


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
    model.blocks[1].ln2.eps = 3e-3
    assert loading.verify(model, show=False).first_disagreement == "blocks.1"


def test_model_without_origin_is_refused():
    model = HookedTransformer.from_pretrained(hf_model=make_model(VARIANTS["gpt2"]), device="cpu")
    with pytest.raises(loading.LoadingError, match="does not say where it came from"):
        loading.verify(model)
