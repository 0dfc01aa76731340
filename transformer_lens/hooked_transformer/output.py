"""What a forward pass can return."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

SingleLoss = Float[Tensor, ""]
"""Mean loss in nats per token."""
LossPerToken = Float[Tensor, "batch pos-1"]
"""Loss in nats of each predicted token."""
Loss = SingleLoss | LossPerToken


class Output(NamedTuple):
    """Pairs logits and loss, for ``return_type="both"``."""

    logits: Float[Tensor, "batch pos d_vocab"]
    loss: Loss
