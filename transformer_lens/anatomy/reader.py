"""Which parameters read a normalized stream, and which write to one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reader:
    """A matrix that reads the output of a norm, and nothing else.

    Attributes:
        matrix: Its name inside the block, or inside the model.
        bias: Name of the bias that is added behind it; None where there is none.
        axis: The axis of the matrix that the norm's output meets.
    """

    matrix: str
    bias: str | None
    axis: str = "d_model"

    def inside(self, prefix: str) -> Reader:
        """Returns the same by names in the model, for a block's prefix such as "blocks.3."."""
        return Reader(prefix + self.matrix, None if self.bias is None else prefix + self.bias, self.axis)


@dataclass(frozen=True)
class Writer:
    """What makes the output of a branch.

    Attributes:
        matrix: Name of the matrix inside the block.
        bias: Name of the bias inside the block.
    """

    matrix: str
    bias: str

    def inside(self, prefix: str) -> Writer:
        """Returns the same by names in the model, for a block's prefix such as "blocks.3."."""
        return Writer(prefix + self.matrix, prefix + self.bias)
