"""Checkpoints packed by other methods: made numbers of by transformers where asked for, else refused by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.quantized_models import FAMILIES, save_unpacked
from tests.tiny_models import VARIANTS, make_model
from transformer_lens import HookedTransformer
from transformer_lens.loading import QuantizedTensorError, UnexpectedTensorError, UnsupportedArchitectureError

TOKENS = torch.tensor([[1, 5, 9, 70, 3, 11, 40], [2, 2, 60, 8, 101, 7, 33]])
BLOCK, LARGEST_FP8 = 128, 448.0


def saved(folder: Path, **sizes: int) -> Path:
    """Saves a float model of a Llama whose heads share keys."""
    variant = VARIANTS["llama-gqa"]
    settings = {**variant.settings, **FAMILIES["llama-gqa"], **sizes}
    make_model(dataclasses.replace(variant, settings=settings)).save_pretrained(folder)
    return folder


def rewrite(folder: Path, quantization: dict[str, Any], pack: Any) -> dict[str, torch.Tensor]:
    """Packs the projections of a saved model; returns what they unpack to."""
    from safetensors.torch import load_file, save_file

    tensors, meant = {}, {}
    for key, tensor in load_file(folder / "model.safetensors").items():
        tensors[key] = tensor
        if key.endswith("proj.weight"):
            parts, meant[key] = pack(tensor.float())
            tensors |= {key + ending: part for ending, part in parts.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": quantization}))
    return meant


def fp8(matrix: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Blocks of 128 rows and columns share a scale."""
    rows, columns = matrix.shape
    across, down = -(-rows // BLOCK), -(-columns // BLOCK)
    padded = torch.zeros(across * BLOCK, down * BLOCK)
    padded[:rows, :columns] = matrix
    scales = padded.view(across, BLOCK, down, BLOCK).abs().amax((1, 3)) / LARGEST_FP8
    spread = scales.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[:rows, :columns]
    packed = (matrix / spread).to(torch.float8_e4m3fn)
    return {"": packed, "_scale_inv": scales}, packed.float() * spread


def by_channel(matrix: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Rows share a scale."""
    scales = matrix.abs().amax(1, keepdim=True) / 127
    packed = (matrix / scales).round().to(torch.int8)
    return {"": packed, "_scale": scales}, packed.float() * scales


FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [BLOCK, BLOCK]}
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"},
        }
    },
    "ignore": ["lm_head"],
}


def unpacked_as_meant(folder: Path, meant: dict[str, torch.Tensor], theirs: Any) -> None:
    model = HookedTransformer.from_pretrained_no_processing(folder, device="cpu", dtype="float32", dequantize=True)
    for layer, block in enumerate(model.blocks):
        want = meant[f"model.layers.{layer}.mlp.up_proj.weight"]
        assert torch.allclose(block.mlp.W_in.t(), want, rtol=1e-2, atol=1e-3 * float(want.abs().max()))
    processed = HookedTransformer.from_pretrained(folder, device="cpu", dtype="float32", dequantize=True)
    assert "fold_ln" in processed.load_report.steps and not processed.load_report.packed
    with torch.no_grad():
        expected = theirs(TOKENS).logits
        assert (model(TOKENS) - expected).abs().max() <= 1e-4 * expected.abs().max()
        gap = processed(TOKENS).log_softmax(-1) - expected.log_softmax(-1)
        assert gap.abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.filterwarnings("ignore")
def test_fp8(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", minversion="5.0")
    # Matrices of one block, and of whole ones.
    meant = rewrite(saved(tmp_path, intermediate_size=256), FP8, fp8)
    with pytest.raises(QuantizedTensorError, match="packed by fp8"):
        HookedTransformer.from_pretrained(tmp_path, device="cpu")
    settings = transformers.FineGrainedFP8Config(dequantize=True)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=settings).float().eval()
    unpacked_as_meant(tmp_path, meant, theirs)


def test_fp8_blocks_that_transformers_would_scale_wrongly_are_refused(tmp_path: Path) -> None:
    rewrite(saved(tmp_path, intermediate_size=192), FP8, fp8)
    with pytest.raises(QuantizedTensorError, match=r"(?s)mlp.*\(1.., 1..\) are cut by its end"):
        HookedTransformer.from_pretrained(tmp_path, device="cpu", dequantize=True)


@pytest.mark.filterwarnings("ignore")
def test_fp8_without_scales_or_of_more_layers_is_refused(tmp_path: Path) -> None:
    """transformers makes up the scales that it does not find, and leaves out the layers that it does not know."""
    pytest.importorskip("transformers", minversion="5.0")
    from safetensors.torch import load_file, save_file

    rewrite(saved(tmp_path), FP8, fp8)
    tensors, key = load_file(tmp_path / "model.safetensors"), "model.layers.1.mlp.up_proj.weight"
    kept = {name: tensor for name, tensor in tensors.items() if name != f"{key}_scale_inv"}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(QuantizedTensorError, match=f"{key} in float8_e4m3fn without scales"):
        HookedTransformer.from_pretrained(tmp_path, device="cpu", dequantize=True)
    more = {name.replace(".1.", ".2."): tensor.clone() for name, tensor in tensors.items() if ".layers.1." in name}
    save_file({**tensors, **more}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnexpectedTensorError, match="more layers than the 2"):
        HookedTransformer.from_pretrained(tmp_path, device="cpu", dequantize=True)
    (tmp_path / "config.json").write_text(
        json.dumps({k: v for k, v in json.loads((tmp_path / "config.json").read_text()).items() if "quant" not in k})
    )
    plain = {name: tensor for name, tensor in tensors.items() if "scale" not in name}
    save_file(plain, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(QuantizedTensorError, match=r"(?s)up_proj.weight  float8_e4m3fn.*only with their scales"):
        HookedTransformer.from_pretrained(tmp_path, device="cpu")


def test_neighbours_of_a_packed_checkpoint_are_not_handed_over(tmp_path: Path) -> None:
    """Code that its config names does not run, and no adapter beside it takes the place of the model."""
    pytest.importorskip("transformers", minversion="5.0")
    rewrite(saved(tmp_path, intermediate_size=256), FP8, fp8)
    mark = tmp_path / "mark"
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    config = json.loads((tmp_path / "config.json").read_text())
    named = {"AutoConfig": "evil.Mine", "AutoModelForCausalLM": "evil.Mine"}
    (tmp_path / "config.json").write_text(json.dumps({**config, "auto_map": named, "attn_implementation": "x/evil"}))
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "some/where", "peft_type": "LORA"}')
    (tmp_path / "generation_config.json").write_text("[")
    model = HookedTransformer.from_pretrained(tmp_path, device="cpu", dequantize=True)
    assert model.cfg.n_layers == 2 and not mark.exists()


def test_compressed_tensors(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", minversion="5.0")
    meant = rewrite(save_unpacked("llama-gqa", tmp_path), COMPRESSED, by_channel)
    with pytest.raises(QuantizedTensorError, match="packed by compressed-tensors"):
        HookedTransformer.from_pretrained(tmp_path, device="cpu")
    try:
        import compressed_tensors  # noqa: F401
    except ImportError:
        with pytest.raises(QuantizedTensorError, match="(?s)cannot make numbers of it here.*compressed-tensors"):
            HookedTransformer.from_pretrained(tmp_path, device="cpu", dequantize=True)
        return
    settings = transformers.CompressedTensorsConfig(dequantize=True)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=settings).float().eval()
    unpacked_as_meant(tmp_path, meant, theirs)


@pytest.mark.filterwarnings("ignore")
def test_mxfp4_is_of_an_architecture_that_is_not_known(tmp_path: Path) -> None:
    config = {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(QuantizedTensorError, match="packed by mxfp4"):
        HookedTransformer.from_pretrained(tmp_path, device="cpu")
    with pytest.raises(UnsupportedArchitectureError, match="GptOssForCausalLM"):
        HookedTransformer.from_pretrained(tmp_path, device="cpu", dequantize=True)
