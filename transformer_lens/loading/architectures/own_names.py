"""Our own names as a table: what ``model.state_dict()`` holds, for a config."""

from __future__ import annotations

from typing import Any

from transformer_lens import anatomy
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Take


def _read(config: ConfigView) -> dict[str, Any]:
    raise AssertionError("our own names come with a config of ours")


def own_names(cfg: HookedTransformerConfig) -> Architecture:
    """Returns the table of the parameters that a model of a config has; upstream's buffers are dropped by name."""
    block = {
        name.replace("._", "."): Take(f"blocks.{{i}}.{name}", axes, optional=name in layer.ours())
        for layer in anatomy.layers(cfg)
        for name, axes in layer.parameters().items()
    }
    once = {name: Take(name, axes) for name, axes in anatomy.schema(cfg).items() if not name.startswith("blocks.")}
    return Architecture(
        name="HookedTransformer",
        model_type="own_names",
        prefix="",
        anchor="embed.W_E",
        layer="blocks.{i}.",
        once=once,
        block=block,
        dropped={
            "blocks.{i}.attn.mask": "a causal mask, computed here",
            "blocks.{i}.attn.IGNORE": "the number that stood for minus infinity",
            "blocks.{i}.attn.rotary_sin": "a rotary table, computed here",
            "blocks.{i}.attn.rotary_cos": "a rotary table, computed here",
        },
        read_config=_read,
        said_by="config",
    )
