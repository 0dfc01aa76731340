"""Packed checkpoints written by hand: numbers on every torch, also where bitsandbytes computes on GPUs only."""

import dataclasses
import json
from importlib import metadata

import pytest
import torch
from packaging.version import Version
from safetensors.torch import save_file

from tests.integration.quantized_models import FAMILIES
from tests.tiny_models import VARIANTS, make_model, save
from transformer_lens import HookedTransformer
from transformer_lens.loading import QuantizedTensorError

BLOCK = 64
# The NF4 numbers, of the QLoRA paper.
TABLE = torch.tensor(
    [-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0,
     0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0]
)  # fmt: skip
TOKENS = torch.tensor([[1, 5, 9, 70, 3, 11, 40], [2, 2, 60, 8, 101, 7, 33]])


def four_bit(name: str, matrix: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """What a file holds for a matrix in blocks of 64 numbers, two of them a byte, and the numbers that this means."""
    blocks = matrix.reshape(-1, BLOCK)
    scales = blocks.abs().amax(1)
    codes = (blocks[:, :, None] / scales[:, None, None] - TABLE).abs().argmin(-1)
    pairs = codes.reshape(-1, 2)
    state = {"quant_type": "nf4", "blocksize": BLOCK, "dtype": "float32", "shape": list(matrix.shape)}
    stored = {
        name: (pairs[:, :1] * 16 + pairs[:, 1:]).to(torch.uint8),
        f"{name}.absmax": scales,
        f"{name}.quant_map": TABLE.clone(),
        f"{name}.quant_state.bitsandbytes__nf4": torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8),
    }
    return stored, (TABLE[codes] * scales[:, None]).reshape(matrix.shape)


def eight_bit(name: str, matrix: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The same in 8 bits, with a scale for each row."""
    scales = matrix.abs().amax(1)
    rounded = (matrix / scales[:, None] * 127).round()
    stored = {name: rounded.to(torch.int8), f"{name.removesuffix('weight')}SCB": scales}
    return stored, rounded * scales[:, None] / 127


WAYS = {
    "4 bits": (four_bit, {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "float32"}),
    "8 bits": (eight_bit, {"load_in_8bit": True}),
}


@pytest.fixture(params=[(family, way) for family in ("llama-gqa", "gpt-neox", "phi3-gqa") for way in WAYS], ids=str)
def case(request, tmp_path):
    """A packed folder, and transformers' model of the numbers in it."""
    family, way = request.param
    pack, settings = WAYS[way]
    # Sizes at which blocks end where rows do: bitsandbytes' kernels of some CPUs know no others.
    variant = VARIANTS[family]
    variant = dataclasses.replace(variant, settings={**variant.settings, **FAMILIES[family]})
    folder = save(variant, tmp_path / "packed")
    model = make_model(variant)
    stored = {}
    for name, tensor in model.state_dict().items():
        if tensor.ndim == 2 and ".layers." in name:
            packed, numbers = pack(name, tensor)
            stored |= packed
            tensor.copy_(numbers)
        else:
            stored[name] = tensor.clone()
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", **settings}
    (folder / "config.json").write_text(json.dumps(config))
    return folder, model


@pytest.mark.parametrize("load_mode", ["auto", "copy"])
@pytest.mark.parametrize("processed", [False, True], ids=["raw", "processed"])
@torch.no_grad()
def test_what_is_packed_is_read_as_numbers(case, load_mode, processed):
    folder, theirs = case
    load = HookedTransformer.from_pretrained if processed else HookedTransformer.from_pretrained_no_processing
    ours = load(folder, device="cpu", dequantize=True, load_mode=load_mode)
    expected = theirs(TOKENS).logits.log_softmax(-1)
    assert (ours(TOKENS).log_softmax(-1) - expected).abs().max() < 1e-4
    assert ours.load_report.dequantized and not ours.load_report.packed


def test_what_bitsandbytes_cannot_multiply_is_refused(case):
    folder, theirs = case
    if Version(metadata.version("bitsandbytes")) < Version("0.46"):
        with pytest.raises(QuantizedTensorError, match="cannot multiply on a CPU"):
            HookedTransformer.from_pretrained_no_processing(folder, device="cpu")
        return
    ours = HookedTransformer.from_pretrained_no_processing(folder, device="cpu")
    assert ours.load_report.packed
    with torch.no_grad():
        expected = theirs(TOKENS).logits
        # In 8 bits bitsandbytes rounds what is multiplied as well.
        assert (ours(TOKENS) - expected).norm() <= 0.1 * expected.norm()
