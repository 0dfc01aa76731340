"""Every processed weight and every cached activation against TransformerLens 2.16.1.

``tests/goldens/make.py`` made the numbers, in the oracle's own environment, and says how.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny_models import VARIANTS, make_model, parameters_in_order, save
from transformer_lens import HookedTransformer

GOLDENS = sorted((Path(__file__).resolve().parents[1] / "goldens").glob("*.npz"))
CLOSE = {"atol": 2e-4, "rtol": 1e-4}


@pytest.fixture(scope="module", params=GOLDENS, ids=lambda path: path.stem)
def case(request, tmp_path_factory):
    """A golden, and our model of the same weights, loaded from files with the default flags."""
    golden = np.load(request.param)
    variant = VARIANTS[request.param.stem]
    hf_model = make_model(variant)
    found = np.array([p.double().abs().sum().item() for _, p in parameters_in_order(hf_model)])
    np.testing.assert_allclose(
        found, golden["fingerprint"], rtol=1e-9, err_msg="not the weights the golden was made of: run make.py again"
    )
    folder = save(variant, tmp_path_factory.mktemp("variant"))
    model = HookedTransformer.from_pretrained(folder, device="cpu")
    model.set_use_attn_result(True)
    model.set_use_hook_mlp_in(True)
    return golden, model


def part(golden, prefix: str) -> dict[str, torch.Tensor]:
    return {key[len(prefix) :]: torch.from_numpy(golden[key]) for key in golden.files if key.startswith(prefix)}


def test_there_are_goldens_of_every_family():
    assert {path.stem for path in GOLDENS} >= {"gpt2", "gpt-neox", "llama", "mistral", "qwen2", "phi3-gqa"}


def test_processed_weights(case):
    golden, model = case
    expected = part(golden, "weight/")
    ours = dict(model.named_parameters())
    assert set(ours) == set(expected)
    for name, value in expected.items():
        assert ours[name].shape == value.shape, name
        torch.testing.assert_close(ours[name].detach(), value, **CLOSE, msg=lambda text, name=name: f"{name}: {text}")


@torch.no_grad()
def test_every_activation(case):
    golden, model = case
    expected = part(golden, "cache/")
    logits, cache = model.run_with_cache(torch.from_numpy(golden["tokens"]))
    assert set(expected) <= set(cache.keys())
    for name, value in expected.items():
        assert cache[name].shape == value.shape, name
        torch.testing.assert_close(cache[name], value, **CLOSE, msg=lambda text, name=name: f"{name}: {text}")
    torch.testing.assert_close(logits, torch.from_numpy(golden["logits"]), **CLOSE)
