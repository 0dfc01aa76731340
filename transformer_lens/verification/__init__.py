"""``verify``: our model against transformers on the user's own checkpoint, block by block.

No side is held as a whole where its weights can be had one block at a time.
"""

from transformer_lens.verification.table import Row, Verification
from transformer_lens.verification.verify import verify

__all__ = ["Row", "Verification", "verify"]
