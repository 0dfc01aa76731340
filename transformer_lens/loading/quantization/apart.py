"""Takes processed matrices apart: into what is packed, and what can be kept beside the bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from transformer_lens.loading.processing.blocks import inner_dtype
from transformer_lens.loading.processing.linear_chain import Center, Chain, Scale, recast
from transformer_lens.loading.quantization.beside import Beside
from transformer_lens.loading.quantization.promises import with_beside
from transformer_lens.loading.weights import LazyTensor


@dataclass(frozen=True)
class Apart:
    """A processed matrix in two parts.

    Attributes:
        rest: What is to be packed.
        scales: What its columns are multiplied by beside the bytes; None for ones.
        over_inputs: As `Beside` has it.
        over_outputs: As `Beside` has it.
    """

    rest: LazyTensor
    scales: LazyTensor | None
    over_inputs: bool
    over_outputs: bool

    def onto(self, packed: LazyTensor, dtype: torch.dtype) -> LazyTensor:
        """Returns the promise of the rest, packed, with the other part beside its bytes.

        Args:
            packed: The rest.
            dtype: Of the model's numbers.
        """
        scales = None if self.scales is None else recast(self.scales, inner_dtype(dtype), packed.device)
        beside = Beside(None, self.over_inputs, self.over_outputs)
        if scales is None:
            return with_beside(packed, lambda: beside, 0)
        promise = scales
        return with_beside(packed, lambda: replace(beside, scales=promise.make()), promise.nbytes)


def taken_apart(tensor: LazyTensor) -> Apart | None:
    """Takes apart what a norm was folded into, or what was centred.

    Args:
        tensor: Processed, of axes that one matrix has: [inputs outputs], or with heads before them.

    Returns:
        None where nothing can be kept beside the bytes.
    """
    if not isinstance(tensor.make, Chain):
        return None
    *heads, inputs, outputs = tensor.layout.split()
    # An axis of heads is summed over, or comes out, together with that of the dimensions of a head.
    own = {axis for axis in (inputs, outputs) if not heads or axis != "d_head"}
    scales: list[LazyTensor] = []
    centred: set[str] = set()
    for operation in tensor.make.operations:
        if isinstance(operation, Scale) and operation.axis == inputs and inputs in own and not scales and not centred:
            scales.append(operation.by)
        elif isinstance(operation, Center) and operation.axis in own:
            centred.add(operation.axis)
        else:
            return None
    if not scales and not centred:
        return None
    return Apart(tensor.make.source, scales[0] if scales else None, inputs in centred, outputs in centred)
