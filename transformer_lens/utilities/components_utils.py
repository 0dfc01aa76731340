"""Names of activations from their short forms."""

import re
from typing import SupportsIndex

from transformer_lens.utilities.indices import as_index

ALIASES = {
    "attn": "pattern",
    "attn_logits": "attn_scores",
    "key": "k",
    "query": "q",
    "value": "v",
    "mlp_pre": "pre",
    "mlp_mid": "mid",
    "mlp_post": "post",
}
LAYER_TYPES = {"a": "attn", "m": "mlp", "b": "", "block": "", "blocks": "", "attention": "attn"}
IN_ATTENTION = frozenset("k v q z rot_k rot_q result pattern attn_scores".split())
IN_MLP = frozenset("pre post mid pre_linear".split())
IN_NORMALIZATION = frozenset(["scale", "normalized"])


def get_act_name(name: str, layer: SupportsIndex | str | None = None, layer_type: str | None = None) -> str:
    """Writes out the name of an activation.

    ``("k", 6)`` and ``"k6"`` are ``blocks.6.attn.hook_k``; ``("pre", 2)`` is ``blocks.2.mlp.hook_pre``;
    ``("normalized", 27, "ln2")`` and ``"normalized27ln2"`` are ``blocks.27.ln2.hook_normalized``; ``"embed"`` is
    ``hook_embed``; ``"scale"`` is ``ln_final.hook_scale``.

    Args:
        name: The short form. A name with a dot, or that starts with ``hook_``, is taken for written out.
        layer: The layer, of any integer type; None outside of the blocks. Names do not know how many layers there are,
            so none counts from the end; an :class:`ActivationCache` knows.
        layer_type: The part of the block, where `name` does not tell: "attn", "mlp", "ln1", "ln2", or a first letter.

    Raises:
        TypeError: `layer` is no integer.
        ValueError: `layer` is negative.
    """
    if layer is not None and not isinstance(layer, str):
        layer = as_index(layer, "layer")
        if layer < 0:
            raise ValueError(f"layer is {layer}; a name counts layers from 0 on: use n_layers - {-layer}")
    if ("." in name or name.startswith("hook_")) and layer is None and layer_type is None:
        return name
    short = re.match(r"([a-z]+)(\d+)([a-z]?.*)", name)
    if short is not None:
        name, layer, layer_type = short.group(1), short.group(2), short.group(3)
    name = ALIASES.get(name, name)
    if name in IN_ATTENTION:
        layer_type = "attn"
    elif name in IN_MLP:
        layer_type = "mlp"
    parts = [] if layer is None else ["blocks", str(layer)]
    if layer is None and name in IN_NORMALIZATION:
        parts.append("ln_final")
    part = LAYER_TYPES.get(layer_type or "", layer_type)
    if part:
        parts.append(part)
    return ".".join([*parts, f"hook_{name}"])
