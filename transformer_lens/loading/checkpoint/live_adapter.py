"""What a live model with adapters computes, as tensors under the names that it had without them.

Every module of peft that is met is one whose forward pass is known here, in the state that it is in; any other is
refused by name. Nothing is copied, written to, or changed in the model, and peft itself is not imported: whoever has a
live model with its layers has imported it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from transformer_lens.loading.checkpoint.adapter_config import REFUSED
from transformer_lens.loading.checkpoint.low_rank import LowRank, with_low_rank, with_rows, with_sum
from transformer_lens.loading.errors import QuantizedTensorError, UnhandledConfigError
from transformer_lens.loading.quantization.promises import dequantized, transposed_numbers
from transformer_lens.loading.weights import Held, LazyTensor

# Returns the promise of a parameter, given its key, itself and the module that owns it.
PromiseOf = Callable[[str, Tensor, nn.Module], LazyTensor]
_LORA = (
    "peft.tuners.lora.layer.Linear",
    "peft.tuners.lora.layer.Embedding",
    "peft.tuners.lora.bnb.Linear8bitLt",
    "peft.tuners.lora.bnb.Linear4bit",
)
_PARAMETER = "peft.tuners.lora.layer.ParamWrapper"
_SAVED = "peft.utils.other.ModulesToSaveWrapper"
_TOKENS = "peft.utils.other.TrainableTokensWrapper"
_TOKEN_LAYER = "peft.tuners.trainable_tokens.layer.TrainableTokensLayer"
# What a LoRA layer holds; a variant that computes otherwise holds more.
_OF_LORA = ("base_layer", "lora_dropout", "lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B",
            "lora_magnitude_vector")  # fmt: skip
_KINDS = ("LORA", "TRAINABLE_TOKENS")
# Settings of a live adapter that are done with once its layers are made.
_DONE = ("corda_config", "layer_replication", "loftq_config", "lora_ga_config", "target_parameters")


@dataclass(frozen=True)
class Seen:
    """A tensor that a model computes with.

    Attributes:
        key: Its name without peft.
        tensor: As a promise.
        what: What adapters have done to it, in words; empty for the base's own.
        dtype: That it had before.
    """

    key: str
    tensor: LazyTensor
    what: str
    dtype: torch.dtype


def is_of_peft(module: nn.Module) -> bool:
    """Whether a module's class is defined by peft."""
    return type(module).__module__.split(".")[0] == "peft"


def has_adapters(hf_model: nn.Module) -> bool:
    """Whether a model is a wrapper of peft, or holds layers of it."""
    return any(is_of_peft(module) for module in hf_model.modules())


def without_wrapper(hf_model: nn.Module, label: str) -> nn.Module:
    """Returns the transformers model inside a ``PeftModel``, with its layers; any other model as it is.

    Raises:
        UnhandledConfigError: The wrapper, or an adapter in it, computes what no weight can hold.
    """
    # Any: what peft and transformers put on a module is not known to its class.
    outer: Any = hf_model
    base: Any = hf_model
    try:
        base = outer.get_base_model() if is_of_peft(hf_model) else hf_model
    except AttributeError:
        raise _refused(f"{label} is a {_name(hf_model)}", "Give the PeftModel that it is in.") from None
    try:
        configs = outer.peft_config
    except AttributeError:
        # Layers of peft that were put in by hand say by themselves what they are.
        return base  # type: ignore[no-any-return]
    for name, config in configs.items():
        settings = config.to_dict()
        kind = str(settings.get("peft_type")).removeprefix("PeftType.")
        if kind not in _KINDS:
            raise _refused(
                f"the adapter {name!r} of {label} is of type {kind}",
                "LORA is computed here. Merge it (merge_and_unload) where that can be done, or give get_base_model().",
            )
        strange = [field for field in REFUSED if field not in _DONE and settings.get(field)]
        if strange:
            raise _refused(
                f"the adapter {name!r} of {label} sets {', '.join(strange)}",
                "Plain LoRA, rsLoRA and DoRA are computed here. Merge it (merge_and_unload) and give the result.",
            )
    return base  # type: ignore[no-any-return]


def tensors_of_live(module: nn.Module, promise_of: PromiseOf, label: str, prefix: str = "") -> Iterator[Seen]:
    """Yields what a module and those in it compute with, by the names that they had without peft.

    Args:
        module: Of a live model.
        promise_of: Returns the promise of a parameter.
        label: What messages call the model.
        prefix: Name of the module, with a dot behind it.

    Raises:
        UnhandledConfigError: A layer of peft computes what is not known here.
        QuantizedTensorError: A packed weight cannot be had without its adapter.
    """
    kind = f"{type(module).__module__}.{type(module).__qualname__}"
    if kind in _LORA or kind == _PARAMETER:
        yield from _lora(module, promise_of, label, prefix, kind)
    elif kind == _SAVED:
        yield from _saved(module, promise_of, label, prefix)
    elif kind == _TOKENS:
        yield from _tokens(module._modules["token_adapter"], promise_of, label, prefix)
    elif kind == _TOKEN_LAYER:
        yield from _tokens(module, promise_of, label, prefix)
    elif is_of_peft(module):
        raise _refused(
            f"{prefix.rstrip('.') or 'the model'} of {label} is a {kind}",
            "LoRA, modules_to_save and trainable tokens are computed here. Merge it (merge_and_unload) where that can "
            "be done, or give the base.",
        )
    else:
        for name, parameter in module._parameters.items():
            if parameter is not None:
                promise = promise_of(prefix + name, parameter, module)
                yield Seen(prefix + name, promise, "", promise.dtype)
        for name, buffer in module._buffers.items():
            # What is kept with the weights is one of them: a router's correction.
            if buffer is not None and buffer.is_floating_point() and name not in module._non_persistent_buffers_set:
                promise = promise_of(prefix + name, buffer, module)
                yield Seen(prefix + name, promise, "", promise.dtype)
        for name, child in module._modules.items():
            if child is not None:
                yield from tensors_of_live(child, promise_of, label, f"{prefix}{name}.")


def _lora(layer: Any, promise_of: PromiseOf, label: str, prefix: str, kind: str) -> Iterator[Seen]:
    """Yields what a LoRA layer computes with: its base's tensors, those changed that active adapters change."""
    name = prefix.rstrip(".")
    strange = [part for part, held in layer._modules.items() if part not in _OF_LORA and _holds(held)]
    if strange or layer._parameters:
        raise _refused(f"{name} of {label} holds {', '.join([*strange, *layer._parameters])}", "No LoRA here has that.")
    base = {seen.key: seen for seen in tensors_of_live(layer.base_layer, promise_of, label, prefix)}
    active = [] if layer.disable_adapters or layer.merged else _active_of(layer)
    if layer.disable_adapters and layer.merged:
        raise _refused(f"{name} of {label} has adapters merged into it and disabled", "Call unmerge_adapter() first.")
    key = prefix + (layer.parameter_name if kind == _PARAMETER else "weight")
    packed = base[key].tensor.packed is not None if key in base else False
    if packed and (layer.merged or any(one in layer.lora_magnitude_vector for one in active)):
        raise QuantizedTensorError(
            f"{key} of {label} is packed, and its adapter "
            + ("is merged into it" if layer.merged else "is DoRA, whose change depends on the whole weight")
            + ".\n  Load the base unpacked and give the adapter with adapter=."
        )
    if active:
        if key not in base:
            raise _refused(f"{name} of {label} has no tensor {key}", "Only LoRA on matrices is computed here.")
        changed = _changed(layer, active, base[key], label, kind)
        base[key] = changed
        bias = _changed_bias(layer, active, base.get(f"{prefix}bias"), label, name)
        if bias is not None:
            base[f"{prefix}bias"] = bias
    yield from base.values()


def _holds(module: nn.Module | None) -> bool:
    return module is not None and any(True for _ in module.parameters())


def _active_of(layer: Any) -> list[str]:
    """Returns the active adapters that a layer has factors for, in order."""
    return [name for name in layer.active_adapters if name in layer.lora_A or name in layer.lora_embedding_A]


def _changed(layer: Any, active: list[str], base: Seen, label: str, kind: str) -> Seen:
    embeds = any(name in layer.lora_embedding_A for name in active)
    changes: list[LowRank] = []
    words: list[str] = []
    for name in active:
        if embeds:
            down, up = layer.lora_embedding_A[name], layer.lora_embedding_B[name]
        else:
            down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
        held = layer.lora_magnitude_vector
        magnitude = _promise(held[name].weight, base.key, label) if name in held else None
        scale = float(layer.scaling[name])
        changes.append(LowRank(_promise(down, base.key, label), _promise(up, base.key, label), scale, magnitude))
        words.append(f"{'LoRA' if magnitude is None else 'DoRA'} of rank {down.shape[0]}, scale {scale:g}, of {name!r}")
    if len(changes) > 1 and any(change.magnitude is not None for change in changes):
        raise _refused(
            f"{base.key} of {label} has DoRA beside another active adapter", "Make one of them active (set_adapter)."
        )
    tensor, file_is_transposed = base.tensor, False
    transposed = embeds or (kind != _PARAMETER and bool(layer.fan_in_fan_out))
    if tensor.packed is not None:
        # bitsandbytes keeps [outputs inputs]; the file of a Conv1D has [inputs outputs].
        source = vars(layer.get_base_layer()).get("source_cls")
        file_is_transposed = source is not None and source.__name__ == "Conv1D"
        tensor, transposed = dequantized(tensor), False
    inputs, outputs = tensor.shape if transposed else tensor.shape[::-1]
    for change in changes:
        if change.down.shape[1:] != (inputs,) or change.up.shape != (outputs, change.down.shape[0]):
            raise _refused(
                f"the factors of {base.key} of {label} are {change.down.shape} and {change.up.shape}, and it is "
                f"{tensor.shape}",
                "Only LoRA on matrices is computed here.",
            )
    what = "; ".join(words)
    out = with_low_rank(tensor, changes, transposed, "merged")
    out = transposed_numbers(out) if file_is_transposed else out
    return replace(base, tensor=out, what=f"{base.what}; {what}" if base.what else what)


def _changed_bias(layer: Any, active: list[str], base: Seen | None, label: str, name: str) -> Seen | None:
    """Returns the base's bias with those of the factors added; None where these have none."""
    found = [(one, layer.lora_B[one].bias) for one in active if one in layer.lora_B]
    terms = [(float(layer.scaling[one]), bias) for one, bias in found if bias is not None]
    if not terms:
        return None
    if base is None:
        raise _refused(
            f"{name} of {label} has factors with a bias (lora_bias), and no bias of its own",
            "Train without lora_bias, or give a base whose layer has a bias.",
        )
    promised = [(scale, _promise(bias, base.key, label)) for scale, bias in terms]
    what = "bias of the factors"
    return replace(base, tensor=with_sum(base.tensor, promised, "merged"), what=what)


def _saved(wrapper: Any, promise_of: PromiseOf, label: str, prefix: str) -> Iterator[Seen]:
    """Yields the tensors of the module that a wrapper hands its input to."""
    active = [] if wrapper.disable_adapters else _names(wrapper.active_adapter)
    chosen = [name for name in active if name in wrapper.modules_to_save][:1]
    module = wrapper.modules_to_save[chosen[0]] if chosen else wrapper.original_module
    for seen in tensors_of_live(module, promise_of, label, prefix):
        yield replace(seen, what=f"taken whole from {chosen[0]!r}") if chosen else seen


def _tokens(layer: Any, promise_of: PromiseOf, label: str, prefix: str) -> Iterator[Seen]:
    """Yields the tensors of a table, the rows that active adapters have trained in their place."""
    name = prefix.rstrip(".")
    active = [one for one in _names(layer.active_adapter) if one in layer.trainable_tokens_delta]
    if layer.merged and (layer.disable_adapters or not active):
        raise _refused(f"{name} of {label} has tokens merged into it and disabled", "Call unmerge_adapter() first.")
    if layer.disable_adapters or layer.merged:
        active = []
    for seen in tensors_of_live(layer.base_layer, promise_of, label, prefix):
        if seen.key == f"{prefix}weight":
            for one in active:
                rows = [int(row) for row in layer.token_indices[one]]
                if seen.tensor.packed is not None:
                    raise QuantizedTensorError(f"{seen.key} of {label} is packed, and some of its rows were trained.")
                values = _promise(layer.trainable_tokens_delta[one], seen.key, label)
                what = f"{len(rows)} rows from {one!r}"
                seen = replace(seen, tensor=with_rows(seen.tensor, rows, values, "merged"), what=what)
        yield seen


def _names(active: Any) -> list[str]:
    """Returns the names of active adapters: peft has one, or a list, or none."""
    return [active] if isinstance(active, str) else list(active or ())


def _promise(tensor: Tensor, key: str, label: str) -> LazyTensor:
    return LazyTensor.of(tensor.detach(), key, label, Held.BORROWED)


def _name(module: nn.Module) -> str:
    return type(module).__qualname__


def _refused(fact: str, next_step: str) -> UnhandledConfigError:
    return UnhandledConfigError(f"hf_model= computes what its weights cannot hold here: {fact}.\n  {next_step}")
