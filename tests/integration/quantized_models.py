"""Quantized tiny models of every family, made by transformers itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from tests.tiny_models import VARIANTS, make_model

# Sizes at which bitsandbytes' blocks end where rows do, and heads are of more than one size.
_SIZES = {"hidden_size": 128, "intermediate_size": 192, "num_attention_heads": 4}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 128, "n_head": 4, "n_inner": 192},
    "gpt-neox": dict(_SIZES),
    "llama": {**_SIZES, "num_key_value_heads": 4},
    "llama-gqa": {**_SIZES, "num_key_value_heads": 2},
    "mistral": {**_SIZES, "num_key_value_heads": 2},
    "qwen2": {**_SIZES, "num_key_value_heads": 2},
    "phi3": {**_SIZES, "num_key_value_heads": 4},
    "phi3-gqa": {**_SIZES, "num_key_value_heads": 2},
}
WAYS: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    "nf4-nested": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "nf4-in-bf16": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_quant_storage": "bfloat16"},
    "int8": {"load_in_8bit": True},
    "int8-threshold-0": {"load_in_8bit": True, "llm_int8_threshold": 0.0},
}


def config(way: str) -> Any:
    """Returns transformers' own config."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(**WAYS[way])


def save_unpacked(family: str, folder: Path) -> Path:
    """Saves a float model of a family."""
    variant = VARIANTS[family]
    known = set(variant.config().to_dict())
    settings = {**variant.settings, **{name: size for name, size in FAMILIES[family].items() if name in known}}
    make_model(dataclasses.replace(variant, settings=settings)).save_pretrained(folder)
    return folder


def load_packed(folder: Path, way: str | None, device: str = "cpu") -> Any:
    """Lets transformers load a model packed, with modules that do not rewrite their weights on some CPUs."""
    from transformers import AutoModelForCausalLM

    arguments = {} if way is None else {"quantization_config": config(way)}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map={"": device}, **arguments)
    for module in model.modules():
        if "support_avx512bf16_for_cpu" in vars(module):
            module.support_avx512bf16_for_cpu = False
    return model.eval()


def rewrites_weights() -> bool:
    """Whether bitsandbytes' modules rewrite their weights on this CPU."""
    from bitsandbytes import functional

    known = vars(functional).get("has_avx512bf16")
    return known is not None and bool(known())
