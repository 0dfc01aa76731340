"""Upstream's bridge does not exist here; importing it says what to use.

Clients ask for ``transformer_lens.model_bridge.TransformerBridge`` of every version from 3 on, inside
``try … except ImportError``: anything but an ``ImportError`` would break them.
"""

raise ImportError(
    "transformer_lens.model_bridge does not exist in this version: "
    "use transformer_lens.HookedTransformer.from_pretrained(...), which loads any checkpoint folder or hub name."
)
