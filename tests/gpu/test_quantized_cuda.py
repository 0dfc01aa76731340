"""The table of packed models on CUDA: skipped where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.quantized_models import FAMILIES, WAYS, config, load_packed, save_unpacked
from transformer_lens import HookedTransformer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
TOKENS = torch.tensor([[1, 5, 9, 70, 3, 11, 40], [2, 2, 60, 8, 101, 7, 33]])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("bitsandbytes")
    return {family: save_unpacked(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


@pytest.mark.parametrize("source", ["live", "directory", "on load"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_models_equal_transformers(
    family: str, way: str, source: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    theirs = load_packed(folders[family], way, "cuda")
    load: Any = HookedTransformer.from_pretrained_no_processing
    if source == "live":
        model = load(hf_model=theirs, dtype="auto", device="cuda")
    elif source == "directory":
        theirs.save_pretrained(tmp_path)
        model = load(tmp_path, dtype="auto", device="cuda")
    else:
        model = load(folders[family], quantization_config=config(way), device="cuda")
    assert model.blocks[0].attn.W_Q.is_cuda and len(model.blocks[0].attn.packing) == 4
    with torch.no_grad():
        expected = theirs(TOKENS.cuda()).logits
        found = model(TOKENS)
    assert (found - expected).abs().max() <= 1e-3 * expected.abs().max()
    logits = model(TOKENS)
    logits[0, -1, 3].backward()
    assert model.embed.W_E.grad.isfinite().all()


def test_a_packed_model_moves_with_its_scales(folders: dict[str, Path]) -> None:
    model = HookedTransformer.from_pretrained_no_processing(
        folders["llama-gqa"], quantization_config=config("nf4-nested"), device="cpu"
    )
    with torch.no_grad():
        expected = model(TOKENS)
        found = model.to("cuda", print_details=False)(TOKENS)
        assert model.blocks[0].attn.W_Q.quant_state.state2.absmax.is_cuda
        assert torch.allclose(found.cpu(), expected, atol=1e-3 * float(expected.abs().max()))
