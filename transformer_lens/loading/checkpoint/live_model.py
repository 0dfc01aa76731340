"""A live transformers model as a checkpoint: its tensors are borrowed under the names that files have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from transformer_lens.loading.checkpoint.adapter import Holds, adapters_in
from transformer_lens.loading.checkpoint.checkpoint import Checkpoint, Merge, open_checkpoint, read_config_json
from transformer_lens.loading.checkpoint.live_adapter import has_adapters, tensors_of_live, without_wrapper
from transformer_lens.loading.conversion.convert import collapse
from transformer_lens.loading.errors import LoadingError, MissingTensorError, QuantizedTensorError
from transformer_lens.loading.quantization.bitsandbytes import is_woven, packed_type, packing_of
from transformer_lens.loading.quantization.methods import UNDONE_BY_TRANSFORMERS
from transformer_lens.loading.quantization.promises import packed_promise
from transformer_lens.loading.sources.handed_over import handed_over, is_failure
from transformer_lens.loading.sources.hub_source import HubSource
from transformer_lens.loading.sources.remote_code import without_code
from transformer_lens.loading.sources.resolve import resolve
from transformer_lens.loading.sources.source import GGUFSource, Source
from transformer_lens.loading.versions import dtype_argument
from transformer_lens.loading.weights import Held, LazyTensor, Origin, Weights

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
        UnhandledConfigError: It has adapters that compute what weights cannot hold.
        LoadingError: Some of its weights are not in memory (offloaded, or on the meta device).
    """
    from transformers import PreTrainedModel

    name = label or type(hf_model).__name__
    if has_adapters(hf_model):
        hf_model = without_wrapper(hf_model, name)
    if not isinstance(hf_model, PreTrainedModel):
        raise LoadingError(
            f"hf_model= takes a model of transformers, not {type(hf_model).__module__}.{type(hf_model).__qualname__}.\n"
            "  Weights of another kind are loaded by HookedTransformer.from_state_dict, with a config."
        )
    config: dict[str, Any] = {**hf_model.config.to_dict(), "architectures": [_base_class_name(hf_model)]}
    # How its weights are packed, the weights themselves say.
    config.pop("quantization_config", None)
    weights: dict[str, LazyTensor] = {}
    merged: dict[str, Merge] = {}
    promise_of = lambda key, tensor, owner: _packed_matrix(key, tensor, owner, name) or _borrowed(key, tensor, name)
    for seen in tensors_of_live(hf_model, promise_of, name):
        weights[seen.key] = seen.tensor
        if seen.what:
            merged[seen.key] = Merge(seen.what, seen.dtype)
    for key, buffer in hf_model.named_buffers():
        if buffer.dtype in _PACKED_BUFFERS and buffer.ndim > 1:
            raise _packed(key, buffer, name)
    return Checkpoint(name, "live model", None, config, Weights(weights), merged=merged)


def _base_class_name(hf_model: nn.Module) -> str:
    """Returns the first class of the model's ancestry that transformers itself defines, so that subclasses load."""
    for ancestor in type(hf_model).__mro__:
        if ancestor.__module__.startswith("transformers."):
            return ancestor.__name__
    return type(hf_model).__name__


def _packed_matrix(key: str, tensor: Tensor, owner: nn.Module, label: str) -> LazyTensor | None:
    """Returns a promise of a packed matrix with its statistics; None for a tensor of numbers."""
    if packed_type(tensor) is None or tensor.device.type == "meta":
        return None
    try:
        packing = packing_of(tensor, owner)
    except QuantizedTensorError as fact:
        raise QuantizedTensorError(f"{key} of {label}: {fact.args[0]}") from None
    if packing is None:
        return LazyTensor.of(tensor.detach().as_subclass(Tensor), key, label, Held.BORROWED)
    # bitsandbytes' own module has rewritten what is woven: its bytes are put back in order, in new memory.
    held = Held.FRESH if is_woven(tensor) else Held.BORROWED
    return packed_promise(packing, tensor.dtype, held, Origin(key, label), tensor.device)


def _borrowed(key: str, tensor: Tensor, label: str) -> LazyTensor:
    if type(tensor) not in _PLAIN_TYPES or tensor.dtype not in _PLAIN_DTYPES:
        raise _packed(key, tensor, label)
    if tensor.device.type == "meta":
        raise LoadingError(
            f"{key} of {label} is not in memory (offloaded, or on the meta device).\n"
            "  Load the transformers model without device_map offloading, or give the checkpoint's path."
        )
    return LazyTensor.of(tensor.detach(), key, label, Held.BORROWED)


def _packed(key: str, tensor: Tensor, label: str) -> QuantizedTensorError:
    return QuantizedTensorError(
        f"{key} of {label} is packed ({type(tensor).__name__}, {str(tensor.dtype)[6:]}), by something else than "
        "bitsandbytes.\n  Load the transformers model without quantization_config; one read from GGUF needs "
        "GgufConfig(dequantize=True), or give the .gguf file's path instead; other packed checkpoints load by their "
        "path with dequantize=True."
    )


def load_dequantized(source: Source, method: str) -> nn.Module:
    """Loads a packed checkpoint as numbers by transformers itself; no code of the checkpoint is run.

    Args:
        source: Where it is.
        method: One of those that transformers can undo.

    Raises:
        QuantizedTensorError: transformers cannot, here.
    """
    import transformers

    kind, arguments = UNDONE_BY_TRANSFORMERS[method]
    try:
        config = vars(transformers)[kind] if kind in vars(transformers) else transformers.__getattr__(kind)
        return _loaded(source, {"quantization_config": config(**arguments), dtype_argument(): "auto"})
    except LoadingError:
        raise
    except BaseException as error:
        if not is_failure(error):
            raise
        raise QuantizedTensorError(
            f"{source.label} is packed by {method}, and transformers {transformers.__version__} cannot make numbers "
            f"of it here: {type(error).__name__}: {error}\n  Load an unpacked checkpoint of the same model."
        ) from error


def load_live(name: str, dtype: torch.dtype, revision: str | None = None) -> nn.Module:
    """Loads a causal language model by transformers itself, in eval mode; no code of the checkpoint is run.

    Raises:
        LoadingError: transformers cannot.
    """
    from transformers import AutoModelForCausalLM

    source, settings = resolve(name, revision=revision), {dtype_argument(): dtype}
    try:
        if not isinstance(source, GGUFSource) and adapters_in(source) is Holds.ADAPTER:
            # peft finds the base by the adapter's config.
            where, known = source.for_transformers()
            model: nn.Module = AutoModelForCausalLM.from_pretrained(where, trust_remote_code=False, **known, **settings)
            return model.eval()
        return _loaded(source, settings)
    except LoadingError:
        raise
    except BaseException as error:
        if not is_failure(error):
            raise
        raise LoadingError(
            f"transformers cannot load {name}: {type(error).__name__}: {error}\n  Give the model with hf_model=."
        ) from error


def _loaded(source: Source, settings: Mapping[str, Any]) -> nn.Module:
    """Loads a model by transformers from nothing but its weights and its config, which names no code.

    Raises:
        MissingTensorError: transformers has made up weights, because the checkpoint has none for them.
    """
    from transformers import AutoModelForCausalLM

    # What has stayed on the hub for a plan is fetched: transformers reads files.
    whole = replace(source, fetch="all") if isinstance(source, HubSource) else source
    config = read_config_json(whole)
    files = open_checkpoint(whole, config, lambda key: False).files
    with handed_over(files) as folder:
        (folder / "config.json").write_text(json.dumps(without_code(config)))
        found: Any = AutoModelForCausalLM.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=True, output_loading_info=True, **settings
        )
    model, told = found
    made_up = sorted(str(key) for key in told["missing_keys"])
    if made_up:
        raise MissingTensorError(
            f"transformers has made up weights that {source.label} does not hold:\n"
            + "\n".join(f"  {line}" for line in collapse(made_up))
            + "\n  is the download complete, and does config.json belong to these weights?"
        )
    out: nn.Module = model.eval()
    return out


class _EmptyOnMeta(TorchFunctionMode):
    """Makes tensors without values on the meta device, which is how modules make parameters; buffers have values."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {} if kwargs is None else kwargs
        return func(*args, **({**kwargs, "device": "meta"} if func is torch.empty else kwargs))


def skeleton(config: Mapping[str, Any], n_layers: int) -> nn.Module:
    """Builds a causal language model of transformers with its matrices on the meta device, in float32.

    Args:
        config: A parsed config.json; what names code in it does not reach transformers.
        n_layers: Layers to build.
    """
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    said = {name: value for name, value in without_code(config).items() if name not in ("dtype", "torch_dtype")}
    if isinstance(said.get("layer_types"), list):
        said["layer_types"] = said["layer_types"][:n_layers]
    kind = CONFIG_MAPPING[config["model_type"]]
    said[kind.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = n_layers
    with _EmptyOnMeta():
        # The definition; fused attention of older releases leaves some of a config out, or needs a newer torch.
        model: nn.Module = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            kind.from_dict(said), attn_implementation="eager"
        )
    return model.eval()
