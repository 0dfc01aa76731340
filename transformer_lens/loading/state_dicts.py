"""State dicts in our names: processed, and live models turned into them."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from transformer_lens import anatomy
from transformer_lens.anatomy import axis_sizes, schema
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading import architectures, processing
from transformer_lens.loading.architectures import own_names
from transformer_lens.loading.checkpoint import from_live_model
from transformer_lens.loading.conversion import convert
from transformer_lens.loading.conversion.convert import refuse_all_but_floats, refuse_more_layers
from transformer_lens.loading.errors import LayoutMismatchError, MissingTensorError
from transformer_lens.loading.processing import Flags, Plan
from transformer_lens.loading.weights import LazyTensor, Weights


def weights_of(state_dict: Mapping[str, Tensor], cfg: HookedTransformerConfig) -> Weights:
    """Borrows a state dict in our names; entries that are no parameters of the model are left out.

    Raises:
        MissingTensorError: It lacks parameters.
        LayoutMismatchError: A tensor has another shape than the model's.
        UnexpectedTensorError: It has more layers than the model.
        QuantizedTensorError: Parameters are no floats.
    """
    axes, sizes = schema(cfg), axis_sizes(cfg)
    missing = [name for name in axes if name not in state_dict]
    if missing:
        raise MissingTensorError("The state dict lacks parameters of the model: " + ", ".join(missing[:8]))
    expected = {name: tuple(sizes[axis] for axis in layout.split()) for name, layout in axes.items()}
    wrong = [
        f"  {name}: state dict {tuple(state_dict[name].shape)}, model {axes[name].replace(' ', ', ')} = {shape}"
        for name, shape in expected.items()
        if tuple(state_dict[name].shape) != shape
    ]
    if wrong:
        more = [f"  … and {len(wrong) - 8} more"] if len(wrong) > 8 else []
        raise LayoutMismatchError("Shapes of state dict and model differ:\n" + "\n".join([*wrong[:8], *more]))
    refuse_more_layers(state_dict, own_names(cfg), cfg.n_layers, "the state dict", {})
    weights = Weights(
        {
            name: replace(LazyTensor.of(state_dict[name].detach(), name, "the state dict"), layout=layout)
            for name, layout in axes.items()
        }
    )
    refuse_all_but_floats(weights, "the state dict")
    return weights


def with_norms_of(names: Container[str], cfg: HookedTransformerConfig, fold_ln: bool) -> HookedTransformerConfig:
    """Returns the config of the weights that are there: "LNPre" says what the model will be, once norms are folded.

    Args:
        names: Of a state dict, ours.
        cfg: Of the model to be.
        fold_ln: Whether norms will be folded.

    Raises:
        ValueError: The state dict has norms, the model has none, and they are not to be folded.
    """
    if anatomy.norm_state(cfg) != "folded":
        return cfg
    unfolded = anatomy.with_norms(cfg, "whole")
    if not any(parameter in names for parameter in set(schema(unfolded)) - set(schema(cfg))):
        return cfg
    if not fold_ln:
        raise ValueError(
            "The config says that norms are folded, and the state dict has their weights: they would be lost.\n"
            "  Give fold_ln=True, or a config whose normalization_type does not end in 'Pre'."
        )
    return unfolded


def process(
    state_dict: Mapping[str, Tensor], cfg: HookedTransformerConfig, flags: Flags
) -> tuple[Weights, HookedTransformerConfig, Plan]:
    """Returns what a state dict becomes under the flags, as promises; the dict is left as it was."""
    cfg = with_norms_of(state_dict, cfg, flags.fold_ln)
    weights = weights_of(state_dict, cfg)
    plan = processing.plan(flags, cfg)
    processed, done = processing.apply(plan, weights, cfg)
    return processed, done, plan


def one_step(
    state_dict: Mapping[str, Tensor], cfg: HookedTransformerConfig, step: Callable[..., Weights], **options: Any
) -> dict[str, Tensor]:
    """Returns a state dict after one step of processing; entries that are no parameters of the model stay.

    Args:
        state_dict: Left as it is.
        cfg: Of the model it belongs to.
        step: A function of ``loading.processing``.
        **options: Of that function.
    """
    before = weights_of(state_dict, cfg)
    after = step(before, cfg, **options)
    others = {name: tensor for name, tensor in state_dict.items() if name not in before}
    return after.state_dict() | others


def state_dict_of(hf_model: nn.Module, cfg: HookedTransformerConfig) -> dict[str, torch.Tensor]:
    """Returns a live transformers model's weights in our names and shapes, as views where a layout allows it."""
    checkpoint = from_live_model(hf_model)
    architecture = architectures.find(checkpoint.config, checkpoint.label)
    skip = architecture.beyond(cfg.n_layers)
    kept = checkpoint.weights.without(key for key in checkpoint.weights if skip(key))
    return convert(kept, architecture, cfg, checkpoint.config, checkpoint.label).weights.state_dict()
