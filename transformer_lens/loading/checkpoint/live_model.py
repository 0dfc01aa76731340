"""A live transformers model as a checkpoint: its tensors are borrowed under the names that files have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from transformer_lens.loading.checkpoint.adapter import is_peft_layer, merged_live_layers
from transformer_lens.loading.checkpoint.checkpoint import Checkpoint
from transformer_lens.loading.errors import LoadingError, QuantizedTensorError
from transformer_lens.loading.versions import dtype_argument
from transformer_lens.loading.weights import Held, LazyTensor, Weights

_PLAIN_TYPES = (Tensor, nn.Parameter)
_PLAIN_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.bool)
# What GPTQ, AWQ and the like keep their numbers in: buffers, beside which a layer has no weight.
_PACKED_BUFFERS = (torch.int32, torch.int8)


def from_live_model(hf_model: nn.Module, label: str | None = None) -> Checkpoint:
    """Borrows a model's parameters. Nothing is copied, written to, or changed in the model.

    Args:
        hf_model: A transformers model.
        label: What messages call it; None takes its class.

    Raises:
        QuantizedTensorError: Its weights are packed.
        LoadingError: Some of its weights are not in memory (offloaded, or on the meta device).
    """
    from transformers import PreTrainedModel

    name = label or type(hf_model).__name__
    merged: dict[str, LazyTensor] = {}
    if any(is_peft_layer(module) for module in hf_model.modules()):
        hf_model = _without_wrapper(hf_model)
        merged = merged_live_layers(hf_model, name)
    if not isinstance(hf_model, PreTrainedModel):
        raise LoadingError(
            f"hf_model= takes a model of transformers, not {type(hf_model).__module__}.{type(hf_model).__qualname__}.\n"
            "  For weights of another kind build a HookedTransformer from a config and use load_state_dict."
        )
    config: Mapping[str, Any] = hf_model.config.to_dict()
    config = {**config, "architectures": [_base_class_name(hf_model)]}
    weights: dict[str, LazyTensor] = {}
    for key, tensor in hf_model.named_parameters(remove_duplicate=False):
        if merged and _belongs_to_peft(key):
            continue
        key = key.replace(".base_layer.", ".")
        if key in merged:
            weights[key] = merged[key]
            continue
        _refuse(key, tensor, name)
        weights[key] = LazyTensor.of(tensor.detach(), key, name, Held.BORROWED)
    for key, buffer in hf_model.named_buffers():
        if buffer.dtype in _PACKED_BUFFERS and buffer.ndim > 1:
            raise _packed(key, buffer, name)
    return Checkpoint(name, "live model", None, config, Weights(weights))


def _without_wrapper(hf_model: nn.Module) -> nn.Module:
    """Returns the transformers model inside a ``PeftModel``, with its LoRA layers; any other model as it is."""
    if type(hf_model).__module__.startswith("peft."):
        base: nn.Module = hf_model.get_base_model()  # type: ignore[operator]
        return base
    return hf_model


def _belongs_to_peft(key: str) -> bool:
    return any(part.startswith("lora_") for part in key.split("."))


def _base_class_name(hf_model: nn.Module) -> str:
    """Returns the first class of the model's ancestry that transformers itself defines, so that subclasses load."""
    for ancestor in type(hf_model).__mro__:
        if ancestor.__module__.startswith("transformers."):
            return ancestor.__name__
    return type(hf_model).__name__


def _refuse(key: str, tensor: Tensor, label: str) -> None:
    if type(tensor) not in _PLAIN_TYPES or tensor.dtype not in _PLAIN_DTYPES:
        raise _packed(key, tensor, label)
    if tensor.device.type == "meta":
        raise LoadingError(
            f"{key} of {label} is not in memory (offloaded, or on the meta device).\n"
            "  Load the transformers model without device_map offloading, or give the checkpoint's path."
        )


def _packed(key: str, tensor: Tensor, label: str) -> QuantizedTensorError:
    return QuantizedTensorError(
        f"{key} of {label} is packed ({type(tensor).__name__}, {str(tensor.dtype)[6:]}): this release loads plain "
        "weights.\n  Load the transformers model without quantization_config; one read from GGUF needs "
        "GgufConfig(dequantize=True), or give the .gguf file's path instead."
    )


def load_live(name: str, dtype: torch.dtype) -> nn.Module:
    """Loads a causal language model by transformers itself, in eval mode; no code of the checkpoint is run."""
    from transformers import AutoModelForCausalLM

    settings = {dtype_argument(): dtype}
    model: nn.Module = AutoModelForCausalLM.from_pretrained(name, trust_remote_code=False, **settings)
    return model.eval()
