"""LoRA adapters: merged into the weights they touch, tensor by tensor; the only importer of peft.

The change of a weight is peft's own: for each touched tensor a layer of peft is made around a copy of it, merged, and
taken apart again. What no adapter touches stays the promise that it was, and no file or model is written to.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from transformer_lens.loading.checkpoint import safetensors
from transformer_lens.loading.checkpoint.bin_file import read_records
from transformer_lens.loading.conversion.convert import collapse
from transformer_lens.loading.errors import (
    LoadingError,
    QuantizedTensorError,
    UnexpectedTensorError,
    UnhandledConfigError,
)
from transformer_lens.loading.quantization.bitsandbytes import packing_of
from transformer_lens.loading.quantization.promises import (
    as_in_file,
    dequantized,
    packed_promise,
    transposed_numbers,
)
from transformer_lens.loading.sources.json_files import read_json
from transformer_lens.loading.sources.source import Source
from transformer_lens.loading.weights import Held, LazyTensor, Origin, Weights

_ROOT = "base_model.model."
_PART = re.compile(r"^(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
                   r"(\.weight)?$")  # fmt: skip
# What changes the merged weight by more than the layer that is made here knows.
_UNKNOWN = ("megatron_config", "loftq_config", "eva_config", "corda_config", "exclude_modules", "lora_bias")


@dataclass(frozen=True)
class Adapter:
    """An adapter's config and tensors.

    Attributes:
        label: What messages call it.
        config: adapter_config.json as parsed.
        tensors: By the names in its file, without their common start.
        files: Its config and its weights.
    """

    label: str
    config: Mapping[str, Any]
    tensors: Weights
    files: tuple[Path, ...] = ()

    @property
    def base(self) -> str | None:
        """Name of the model that it was made for."""
        name = self.config.get("base_model_name_or_path")
        return name if isinstance(name, str) and name else None


def is_adapter(source: Source) -> bool:
    """Whether a source holds an adapter and no model of its own."""
    return source.find("adapter_config.json") is not None and source.find("config.json") is None


def open_adapter(source: Source, io: str) -> Adapter:
    """Reads an adapter's config and headers.

    Raises:
        UnhandledConfigError: It is no LoRA adapter, or has settings that are not known here.
    """
    config_file = source.file("adapter_config.json")
    config = read_json(config_file)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UnhandledConfigError(f"{source.label} is an adapter of type {kind!r}; LORA can be merged here.")
    strange = [name for name in _UNKNOWN if config.get(name)]
    if strange:
        raise UnhandledConfigError(f"adapter_config.json of {source.label} sets {', '.join(strange)}: not known here.")
    path = source.find("adapter_model.safetensors")
    if path is not None:
        found = {key: region.promise(key, io) for key, region in safetensors.read_header(path).items()}
    else:
        path = source.file("adapter_model.bin")
        found = dict(read_records(path))
    tensors = Weights({key.removeprefix(_ROOT): value for key, value in found.items()})
    return Adapter(source.label, config, tensors, (config_file, path))


def merge_adapter(weights: Weights, adapter: Adapter, prefix: str, transposed: Callable[[str], bool]) -> Weights:
    """Promises the weights with an adapter merged into those it touches.

    Args:
        weights: Of the base model, by the names in its file; left as they are.
        adapter: What is merged.
        prefix: What the base model's keys may start with.
        transposed: True for keys of matrices that lie [in, out] in the file.

    Raises:
        UnexpectedTensorError: The adapter touches what the base model does not have.
    """
    modules: dict[str, dict[str, LazyTensor]] = {}
    changes: dict[str, LazyTensor] = {}
    strange: list[str] = []

    def key_of(name: str) -> str | None:
        return next((key for key in (name, name.removeprefix(prefix), prefix + name) if key in weights), None)

    for name, tensor in adapter.tensors.items():
        found = _PART.match(name)
        if found is not None:
            modules.setdefault(found["module"], {})[found["part"]] = tensor
        elif (key := key_of(name.replace(".base_layer.", "."))) is not None and weights[key].shape == tensor.shape:
            # A module that was trained and saved whole, or a bias that was trained.
            changes[key] = replace(tensor, origin=tensor.origin.then(f"taken from {adapter.label}"))
        else:
            strange.append(name)
    for module, parts in modules.items():
        key = key_of(f"{module}.weight")
        if key is None:
            strange.append(module)
            continue
        base = changes.get(key, weights[key])
        if base.packed is not None:
            base = as_in_file(base, transposed(key))
        make = partial(_merged, base, parts, adapter.config, module, transposed(key), adapter.label)
        changes[key] = replace(
            base,
            held=Held.FRESH,
            make=make,
            origin=base.origin.then(f"merged with {adapter.label}"),
            sources=(base, *parts.values()),
            whole=0,
            # peft makes the change of the weight, scaled and not, beside the weight; DoRA also the sum of both.
            working=base.nbytes * (4 if "lora_magnitude_vector" in parts else 2),
        )
    if strange:
        raise UnexpectedTensorError(
            f"{adapter.label} touches modules that the base model does not have:\n"
            + "\n".join(f"  {line}" for line in collapse(strange))
            + f"\n  it says that it was made for {adapter.base!r}; is that the base?"
        )
    return weights.updated(changes)


def _merged(
    base: LazyTensor,
    parts: Mapping[str, LazyTensor],
    config: Mapping[str, Any],
    module: str,
    transposed: bool,
    label: str,
) -> Tensor:
    """Returns one weight with its adapter merged, by a layer of peft around a copy of it."""
    peft = _peft()
    embeds = "lora_embedding_A" in parts
    down, up = ("lora_embedding_A", "lora_embedding_B") if embeds else ("lora_A", "lora_B")
    if down not in parts or up not in parts:
        raise UnexpectedTensorError(f"{label} has only one factor for {module}.")
    own = base.make().detach().clone(memory_format=torch.contiguous_format)
    holder = nn.Module()
    holder.layer = _layer_around(own, transposed, embeds)
    rank = parts[down].shape[0]
    settings = peft.LoraConfig(
        r=rank,
        lora_alpha=_pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", 8)),
        use_rslora=bool(config.get("use_rslora", False)),
        use_dora="lora_magnitude_vector" in parts,
        fan_in_fan_out=transposed,
        target_modules=["layer"],
        lora_dropout=0.0,
        init_lora_weights=False,
    )
    peft.inject_adapter_in_model(settings, holder)
    layer: Any = holder.layer
    with torch.no_grad():
        _fill(layer, down, parts[down])
        _fill(layer, up, parts[up])
        if "lora_magnitude_vector" in parts:
            vector = layer.lora_magnitude_vector["default"].weight
            vector.copy_(parts["lora_magnitude_vector"].make().reshape(vector.shape))
        layer.merge()
    merged: Tensor = layer.get_base_layer().weight.detach()
    return merged


def _fill(layer: Any, part: str, tensor: LazyTensor) -> None:
    held = layer._modules.get(part)
    target = held["default"].weight if held is not None and len(held) else layer.__getattr__(part)["default"]
    target.copy_(tensor.make())


def _layer_around(weight: Tensor, transposed: bool, embeds: bool) -> nn.Module:
    """Returns a module of the kind that peft expects, which holds the weight itself."""
    layer: nn.Module
    if embeds:
        layer = nn.Embedding(weight.shape[0], weight.shape[1], device="meta")
    elif transposed:
        from transformers.pytorch_utils import Conv1D

        layer = Conv1D(weight.shape[1], weight.shape[0])  # type: ignore[no-untyped-call]
    else:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer


def _pattern(patterns: Any, module: str, default: Any) -> Any:
    """Returns the setting of the first pattern that a module's name ends with."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise LoadingError("Merging a LoRA adapter takes the peft package (pip install peft).") from None
    return peft


def is_peft_layer(module: nn.Module) -> bool:
    """Whether a module is a layer of peft, by where its class is defined."""
    return type(module).__module__.startswith("peft.tuners.")


def merged_live_layers(hf_model: nn.Module, label: str) -> dict[str, LazyTensor]:
    """Returns promises of the merged weights of a live model's LoRA layers, by the names without peft.

    Each is made of a copy of its layer: the model stays as it is, merged or not.
    """
    out: dict[str, LazyTensor] = {}
    for name, module in hf_model.named_modules():
        if not is_peft_layer(module) or "base_layer" not in module._modules:
            continue
        layer: Any = module
        weight = layer.get_base_layer().weight
        key = f"{name}.weight"
        packing = packing_of(weight, layer.get_base_layer())
        if packing is not None:
            out[key] = _with_live_delta(
                packed_promise(packing, weight.dtype, Held.BORROWED, Origin(key, label), weight.device), layer, label
            )
            continue
        promise = LazyTensor.of(weight.detach(), key, label, Held.BORROWED)
        if not layer.merged and layer.active_adapters:
            promise = replace(
                promise,
                held=Held.FRESH,
                make=partial(_merged_copy, layer),
                origin=promise.origin.then("merged"),
                working=2 * promise.nbytes,
            )
        out[key] = promise
    return out


def _with_live_delta(promise: LazyTensor, layer: Any, label: str) -> LazyTensor:
    """Returns a packed weight as it is, or as numbers with the layer's active adapters added.

    peft itself would pack the sum again, which loses some of the adapter.

    Raises:
        QuantizedTensorError: The change is not a sum (DoRA), or has been packed into the weight already.
    """
    if layer.merged or len(layer.lora_magnitude_vector) > 0:
        raise QuantizedTensorError(
            f"{promise.origin.key} of {label} is packed, and its adapter "
            + ("is merged into it" if layer.merged else "is DoRA, whose change depends on the whole weight")
            + ".\n  Load the base unpacked and give the adapter with adapter=."
        )
    if not layer.active_adapters:
        return promise
    numbers = dequantized(promise)
    source = vars(layer.get_base_layer()).get("source_cls")

    def make() -> Tensor:
        with torch.no_grad():
            out = numbers.make()
            for name in layer.active_adapters:
                if name in layer.lora_A:
                    delta = layer.get_delta_weight(name)
                    out += delta.reshape(out.shape).to(out)
        return out

    merged = replace(numbers, make=make, origin=numbers.origin.then("merged"))
    # The file of a Conv1D has [inputs outputs].
    return transposed_numbers(merged) if source is not None and source.__name__ == "Conv1D" else merged


def _merged_copy(layer: Any) -> Tensor:
    with torch.no_grad():
        own = copy.deepcopy(layer)
        own.merge()
    merged: Tensor = own.get_base_layer().weight.detach()
    return merged
