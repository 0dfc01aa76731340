"""Left out on purpose; importing it says why, and what to use."""

from transformer_lens.utilities.left_out import refusal

raise refusal(__name__)
