"""Upstream's functions of ``loading_from_pretrained``, over the pipeline."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from transformer_lens import anatomy
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading import architectures
from transformer_lens.loading.checkpoint import read_config_json
from transformer_lens.loading.conversion import read_config
from transformer_lens.loading.errors import UnknownModelError
from transformer_lens.loading.pretrained import prepare
from transformer_lens.loading.processing import Flags
from transformer_lens.loading.request import Request, refuse_unknown_arguments
from transformer_lens.loading.sources import load_tokenizer, resolve, training_run
from transformer_lens.loading.sources.names import hub_name
from transformer_lens.loading.state_dicts import state_dict_of


def convert_hf_model_config(model_name: str, **kwargs: Any) -> dict[str, Any]:
    """Returns the fields of our config that a checkpoint's config.json means.

    Args:
        model_name: A folder, a hub id or an alias.
        **kwargs: Arguments of ``sources.resolve`` (revision, token, cache_dir …).
    """
    source = resolve(model_name, **kwargs)
    config = read_config_json(source)
    return read_config(architectures.find(config, source.label), config, source.label)


def convert_neel_model_config(official_model_name: str, **kwargs: Any) -> dict[str, Any]:
    """Returns the fields that the config.json of one of upstream's own models means: as for any other checkpoint.

    Args:
        official_model_name: A folder, a hub id or an alias.
        **kwargs: Arguments of ``sources.resolve`` (revision, token, cache_dir …).
    """
    return convert_hf_model_config(official_model_name, **kwargs)


def get_pretrained_model_config(
    model_name: str,
    hf_cfg: Mapping[str, Any] | None = None,
    checkpoint_index: int | None = None,
    checkpoint_value: int | None = None,
    fold_ln: bool = False,
    device: str | torch.device | None = None,
    n_devices: int = 1,
    default_prepend_bos: bool | None = None,
    dtype: torch.dtype = torch.float32,
    first_n_layers: int | None = None,
    n_ctx: int | None = None,
    **kwargs: Any,
) -> HookedTransformerConfig:
    """Returns the config of a pretrained model; reads its config.json and headers, no numbers.

    Args:
        model_name: A folder, a hub id or an alias.
        hf_cfg: A parsed config.json to take instead of the checkpoint's.
        checkpoint_index: Place of a training checkpoint.
        checkpoint_value: Step of a training checkpoint.
        fold_ln: Whether the config is that of a model whose norms are folded.
        device: Where parameters will be.
        n_devices: Devices that share the blocks.
        default_prepend_bos: Whether text gets a BOS token; None takes the family's custom.
        dtype: Of the parameters.
        first_n_layers: Layers to keep.
        n_ctx: Longest input.
        **kwargs: ``revision``, ``token``, ``cache_dir``, ``local_files_only``, ``subfolder``, ``trust_remote_code``.
    """
    if hf_cfg is not None:
        config = dict(hf_cfg)
        fields = read_config(architectures.find(config, model_name), config, model_name)
        fields = anatomy.first_layers(fields, first_n_layers or fields["n_layers"])
        fields["n_ctx"] = n_ctx or fields["n_ctx"]
        if default_prepend_bos is not None:
            fields["default_prepend_bos"] = default_prepend_bos
        cfg = HookedTransformerConfig(
            **fields, model_name=model_name, dtype=dtype, device=device, n_devices=n_devices, init_weights=False
        )
        return anatomy.with_norms(cfg, "folded") if fold_ln else cfg
    flags = Flags(fold_ln, False, False, False, False)
    request = Request(
        model_name=model_name, flags=flags, checkpoint_index=checkpoint_index, checkpoint_value=checkpoint_value,
        device=device, n_devices=n_devices, default_prepend_bos=default_prepend_bos, dtype=dtype,
        first_n_layers=first_n_layers, n_ctx=n_ctx, cache_processed=False, **kwargs,
    )  # fmt: skip
    return prepare(request).cfg


def get_pretrained_state_dict(
    official_model_name: str,
    cfg: HookedTransformerConfig,
    hf_model: nn.Module | None = None,
    dtype: torch.dtype = torch.float32,
    **kwargs: Any,
) -> dict[str, Tensor]:
    """Returns a pretrained model's weights, unprocessed, in our names and shapes; views where a layout allows it."""
    if hf_model is not None:
        refuse_unknown_arguments(kwargs)
        return {name: tensor.to(dtype) for name, tensor in state_dict_of(hf_model, cfg).items()}
    request = Request(
        model_name=official_model_name, flags=Flags.none(), device="cpu", dtype=dtype, first_n_layers=cfg.n_layers,
        cache_processed=False, **kwargs,
    )  # fmt: skip
    return prepare(request).weights.state_dict()


def get_num_params_of_pretrained(model_name: str) -> int:
    """Returns upstream's count of a model's parameters: weights of attention and MLPs."""
    count = get_pretrained_model_config(model_name, device="cpu").n_params
    assert count is not None
    return count


def get_checkpoint_labels(model_name: str, **kwargs: Any) -> tuple[list[int], str]:
    """Returns the labels of a model's training checkpoints, ascending, and what they count ("step" or "token").

    Args:
        model_name: A folder, a hub id or an alias.
        **kwargs: Arguments of ``sources.resolve`` (revision, token, cache_dir, local_files_only).

    Raises:
        UnknownModelError: The model has no known checkpoints.
    """
    where = {
        name: kwargs.pop(name) for name in ("revision", "token", "cache_dir", "local_files_only") if name in kwargs
    }
    refuse_unknown_arguments(kwargs)
    run = training_run(hub_name(model_name), resolve(model_name, **where))
    if run is None:
        raise UnknownModelError(f"{model_name} has no list of training checkpoints here.")
    return list(run.labels), run.label_type


def fill_missing_keys(model: nn.Module, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a state dict with the model's own values for the parameters that it lacks; weights are named in a log."""
    out = dict(state_dict)
    for name, parameter in model.named_parameters():
        if name not in out:
            if name.rpartition(".")[2].lstrip("_").startswith("W_"):
                logging.getLogger(__name__).warning("The state dict lacks %s: the model's own value is kept.", name)
            out[name] = parameter.detach()
    return out


def load_tokenizer_of(model_name: str) -> Any | None:
    """Returns the tokenizer of a folder, a hub id or an alias; None where it has none."""
    return load_tokenizer(resolve(model_name))
