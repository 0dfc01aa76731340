"""Upstream's bridge does not exist here; importing it says what to use.

Clients ask for ``transformer_lens.model_bridge.TransformerBridge`` of every version from 3 on, inside
``try … except ImportError``: anything but an ``ImportError`` would break them.
"""

from transformer_lens.utilities.left_out import refusal

raise refusal(__name__)
