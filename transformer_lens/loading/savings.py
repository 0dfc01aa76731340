"""What other arguments would have saved."""

from __future__ import annotations

from transformer_lens.loading.loaders.choose import Choice
from transformer_lens.loading.processing import Plan
from transformer_lens.loading.report import gib
from transformer_lens.loading.weights import Held, Weights

_WORTH_SAYING = 1 << 20


def savings(loaded: Weights, found: Weights, plan: Plan, choice: Choice) -> tuple[str, ...]:
    """Returns sentences about memory that was allocated and need not have been.

    Args:
        loaded: The promises that were kept.
        found: What the checkpoint had for them.
        plan: Steps of processing.
        choice: The loader.
    """
    out: list[str] = []
    fresh = sum(tensor.nbytes for tensor in loaded.values() if tensor.held is Held.FRESH)
    free = sum(tensor.nbytes for tensor in found.values() if tensor.held is not Held.FRESH)
    converted = {str(found[name].dtype)[6:] for name, tensor in loaded.items() if found[name].dtype != tensor.dtype}
    kinds = {tensor.held for tensor in found.values() if tensor.held is not Held.FRESH}
    verb = "share the model's tensors" if kinds == {Held.BORROWED} else "map the file"
    if converted and fresh > _WORTH_SAYING:
        dtype = str(next(iter(loaded.values())).dtype)[6:]
        if plan.steps:
            smaller = sum(found[name].nbytes for name, tensor in loaded.items() if tensor.held is Held.FRESH)
            if smaller < fresh:
                out.append(f"{gib(fresh - smaller)} because {dtype}: dtype='auto' keeps the checkpoint's")
        elif free:
            out.append(f"{gib(fresh)} because {dtype}: dtype='auto' would {verb}")
    if plan.steps and free and fresh > _WORTH_SAYING:
        out.append(
            f"{gib(fresh)} because weights are processed ({', '.join(plan.steps)}): "
            f"from_pretrained_no_processing with dtype='auto' would {verb}"
        )
    if choice.mode == "copy" and not choice.falls_back:
        taken = sum(tensor.nbytes for tensor in loaded.values() if tensor.held is not Held.FRESH)
        if taken > _WORTH_SAYING:
            out.append(f"{gib(taken)} because load_mode='copy': 'assign' would {verb}")
    return tuple(out)
