"""Checkpoints packed by other methods: made numbers of by transformers where asked for, else refused by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.integration.quantized_models import FAMILIES, save_unpacked
from tests.tiny_models import VARIANTS, make_model
from transformer_lens import HookedTransformer
from transformer_lens.loading import QuantizedTensorError, UnexpectedTensorError

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
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 1, "cache_implementation": "x/evil"}')
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


def mxfp4(outputs: int, inputs: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Blocks, scales and the numbers that they mean, one at a time from the definition of the format."""
    values = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    blocks = torch.randint(0, 256, (outputs, inputs // 32, 16), dtype=torch.uint8, generator=generator)
    scales = torch.randint(122, 126, (outputs, inputs // 32), dtype=torch.uint8, generator=generator)
    halves = torch.stack([blocks & 15, blocks >> 4], dim=-1).flatten().tolist()
    meant = [(-1.0 if half >= 8 else 1.0) * values[half % 8] for half in halves]
    powers = [2.0 ** (scale - 127) for scale in scales.flatten().tolist() for _ in range(32)]
    numbers = torch.tensor([value * power for value, power in zip(meant, powers)]).view(outputs, inputs)
    return blocks, scales, numbers


@torch.no_grad()
def test_mxfp4_experts_are_read_by_the_table(tmp_path: Path) -> None:
    """gpt-oss's files hold experts packed as MXFP4, [outputs inputs]; transformers' unpacked ones lie the other way."""
    variant = VARIANTS["gpt-oss"]
    if (reason := variant.why_no_reference()) is not None:
        pytest.skip(reason)
    sizes = {"hidden_size": 64, "intermediate_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    theirs = make_model(dataclasses.replace(variant, settings={**variant.settings, **sizes}))
    theirs.save_pretrained(tmp_path, safe_serialization=True)
    state, generator = load_file(tmp_path / "model.safetensors"), torch.Generator().manual_seed(0)
    for key in [key for key in state if key.endswith(("gate_up_proj", "down_proj"))]:
        experts, inputs, outputs = state.pop(key).shape
        packed = [mxfp4(outputs, inputs, generator) for _ in range(experts)]
        state[f"{key}_blocks"] = torch.stack([blocks for blocks, _, _ in packed])
        state[f"{key}_scales"] = torch.stack([scales for _, scales, _ in packed])
        theirs.get_parameter(key).copy_(torch.stack([numbers.t() for _, _, numbers in packed]))
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    tokens = torch.arange(20)[None] * 3
    expected = theirs(tokens).logits.log_softmax(-1)
    for load in (HookedTransformer.from_pretrained, HookedTransformer.from_pretrained_no_processing):
        found = load(tmp_path, device="cpu")(tokens).log_softmax(-1)
        assert (found - expected).abs().max() < 1e-4
