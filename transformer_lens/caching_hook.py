"""The hook that keeps activations, or their gradients, in a cache."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from transformer_lens.hook_points import DeviceType, HookPoint, ReadingHook
from transformer_lens.utilities.slice import Slice

_POSITION_THIRD_FROM_LAST = frozenset(
    "hook_q hook_k hook_v hook_z hook_result hook_rot_q hook_rot_k "
    "hook_q_input hook_k_input hook_v_input hook_attn_in".split()
)
_POSITION_LAST = frozenset(["hook_tokens"])


def position_axis(point: HookPoint, dims: int) -> int:
    """Returns which axis of an activation with `dims` axes is the position: of scores and patterns the query's.

    The point's axes say so. A point of somebody else's, which declares none, is taken to be of the kind that its name
    has in a transformer: [..., pos, head, width], [..., pos], or most often [..., pos, width].
    """
    declared = point.axis("pos", "query_pos")
    if declared is not None:
        return declared
    last = (point.name or "").rsplit(".", 1)[-1]
    from_end = 1 if last in _POSITION_LAST else 3 if last in _POSITION_THIRD_FROM_LAST else 2
    return dims - from_end


@dataclass(frozen=True, eq=False)
class CachingHook(ReadingHook):
    """Keeps what passes a hook point, without its graph.

    Attributes:
        cache: Where it is kept, by the point's name, with ``_grad`` behind it for gradients.
        is_gradient: What is kept is a gradient.
        device: Where to keep it; None means where it is.
        remove_batch_dim: Keep the first row of the batch, without its axis.
        positions: Which positions to keep.
    """

    cache: dict[str, Tensor]
    is_gradient: bool
    device: DeviceType
    remove_batch_dim: bool
    positions: Slice

    def __call__(self, tensor: Tensor, *, hook: HookPoint) -> None:
        """Keeps `tensor`."""
        assert hook.name is not None
        value = tensor.detach()
        axis = position_axis(hook, tensor.dim())
        if self.positions.mode != "identity" and 0 <= axis < tensor.dim():
            value = self.positions.apply(value, dim=axis)
        if self.device is not None:
            value = value.to(self.device)
        if self.remove_batch_dim and value.dim() > 0:
            value = value[0]
        self.cache[hook.name + "_grad" if self.is_gradient else hook.name] = value
