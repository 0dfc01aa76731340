"""A folder of our own: what ``model.save_pretrained`` writes, as a table.

``config.json`` holds the fields of a ``HookedTransformerConfig`` under ``"transformer_lens"``. Tensors have the names
of ``model.state_dict()``; matrices lie as they are multiplied, so that the mapped file is used as it is.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from transformer_lens import anatomy
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.architectures.own_names import own_names
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Take
from transformer_lens.loading.errors import CorruptCheckpointError

MODEL_TYPE = "hooked_transformer"
FORMAT = 1
# What a load, or a machine, decides anew.
_NOT_SAVED = frozenset(
    """
    device n_devices dtype seed init_weights model_name trust_remote_code from_checkpoint checkpoint_index
    checkpoint_label_type checkpoint_value n_params tokenizer_name tokenizer_prepends_bos load_in_4bit
    quantization_method
    """.split()
)
_FIELDS = tuple(one.name for one in fields(HookedTransformerConfig) if one.name not in _NOT_SAVED)
_SIZES = {"n_layers": 100_000, "n_ctx": 1 << 30, "num_experts": 100_000}
_LARGEST = 10_000_000
# Axes in the file, where they are not those of the parameter.
STORED: Mapping[str, str] = {
    "attn.W_Q": "head d_head d_model", "attn.W_K": "kv_head d_head d_model", "attn.W_V": "kv_head d_head d_model",
    "attn.W_O": "d_model head d_head", "mlp.W_in": "d_mlp d_model", "mlp.W_gate": "d_mlp d_model",
    "mlp.W_out": "d_model d_mlp", "unembed.W_U": "d_vocab_out d_model",
}  # fmt: skip


def stored_axes(name: str, axes: str) -> str:
    """Returns the axes in the file of a parameter.

    Args:
        name: In the model: "blocks.3.attn.W_Q", "unembed.W_U".
        axes: Of the parameter.
    """
    inside = name.split(".", 2)[-1] if name.startswith("blocks.") else name
    return STORED.get(inside.replace("._", "."), axes)


def saved_fields(cfg: HookedTransformerConfig) -> dict[str, Any]:
    """Returns the fields of a config that are written."""
    return {name: getattr(cfg, name) for name in _FIELDS}


def saved_model(config: Mapping[str, Any], label: str) -> Architecture:
    """Returns the table of a folder that ``save_pretrained`` has written, for its ``config.json``.

    Raises:
        CorruptCheckpointError: What the config says is no model.
    """
    given = _checked(config.get("transformer_lens"), label)
    try:
        cfg = HookedTransformerConfig(**given, device="cpu", init_weights=False)
        own = own_names(cfg)
    except (ValueError, TypeError) as problem:
        raise CorruptCheckpointError(f"config.json of {label} describes no model: {problem}") from None

    def read_config(view: ConfigView) -> dict[str, Any]:
        view.take("transformer_lens")
        return dict(given)

    schema = anatomy.schema(cfg)
    once = {name: Take(name, stored_axes(name, schema[name])) for name in own.once}
    block = {
        name: Take(recipe.key, STORED.get(name, recipe.layout), optional=recipe.optional)
        for name, recipe in own.block.items()
        if isinstance(recipe, Take)
    }
    return replace(
        own, model_type=MODEL_TYPE, written_in="saved_model", once=once, block=block, dropped={},
        read_config=read_config, said_by="config.json",
    )  # fmt: skip


def _checked(said: Any, label: str) -> dict[str, Any]:
    """Returns the fields that a file gives: each one known, of its type and of a size that a model can have."""

    def refuse(problem: str) -> CorruptCheckpointError:
        return CorruptCheckpointError(f"config.json of {label}: {problem}\n  {label} was written by save_pretrained.")

    if not isinstance(said, Mapping) or not isinstance(said.get("config"), Mapping):
        raise refuse("'transformer_lens' holds no 'config'.")
    if said.get("format") != FORMAT:
        raise refuse(
            f"format = {said.get('format')!r}, and this version reads format {FORMAT}: update transformer-lens."
        )
    given = dict(said["config"])
    hints = typing.get_type_hints(HookedTransformerConfig)
    for name, value in given.items():
        if name not in _FIELDS:
            raise refuse(f"{str(name)[:80]!r} is no field that is saved.")
        if not _fits(value, hints[name]):
            raise refuse(f"{name} = {repr(value)[:80]} is of another type than {hints[name]}.")
        if isinstance(value, int) and not isinstance(value, bool) and not -1 <= value <= _SIZES.get(name, _LARGEST):
            raise refuse(f"{name} = {value} is not a size that a model has.")
    n_layers = given.get("n_layers", 0)
    for name in ("n_layers", "d_model", "n_ctx", "d_head", "d_vocab"):
        if not isinstance(given.get(name), int) or given[name] < 1:
            raise refuse(f"{name} is not there, or not a whole number of at least 1.")
    for name in anatomy.PER_LAYER_FIELDS:
        if given.get(name) is not None and len(given[name]) != n_layers:
            raise refuse(f"{name} has {len(given[name])} entries for {n_layers} layers.")
    return given


def _fits(value: Any, hint: Any) -> bool:
    """Says whether a value of a JSON file is of a field's type."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inside)
    if origin is list:
        return isinstance(value, list) and all(_fits(one, inside[0]) for one in value)
    if origin is dict or hint is dict:
        return isinstance(value, dict) and all(isinstance(key, str) for key in value)
    if hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint in (int, float):
        return isinstance(value, (int, float) if hint is float else int) and not isinstance(value, bool)
    return hint is str and isinstance(value, str)
