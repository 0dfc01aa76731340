"""Switches for the hook points that cost memory."""

from collections.abc import Callable

from torch import nn

from transformer_lens import anatomy
from transformer_lens.hooked_transformer.input_error import InputError
from transformer_lens.hooked_transformer.parts import ModelParts

_SWITCH_OF_HOOK = {
    "attn.hook_result": "use_attn_result",
    "hook_q_input": "use_split_qkv_input",
    "hook_k_input": "use_split_qkv_input",
    "hook_v_input": "use_split_qkv_input",
    "hook_mlp_in": "use_hook_mlp_in",
    "hook_attn_in": "use_attn_in",
}


class TogglesMixin(ModelParts):
    """Turns on and off the hook points that are not computed by default.

    Each method sets the field of ``cfg`` of the same name; setting the field itself does as well.
    """

    def set_use_attn_result(self, use_attn_result: bool) -> None:
        """Exposes each head's output, ``attn.hook_result`` of shape ``[batch pos head d_model]``."""
        self.cfg.use_attn_result = use_attn_result

    def set_use_split_qkv_input(self, use_split_qkv_input: bool) -> None:
        """Gives each head its own ``hook_{q,k,v}_input`` of shape ``[batch pos head d_model]``."""
        self.cfg.use_split_qkv_input = use_split_qkv_input

    def set_use_hook_mlp_in(self, use_hook_mlp_in: bool) -> None:
        """Exposes the residual stream before the MLP's norm, ``hook_mlp_in`` of shape ``[batch pos d_model]``.

        Raises:
            InputError: If the model has no MLPs.
        """
        if anatomy.layer_of(self.cfg, 0).mlp is None:
            raise InputError("hook_mlp_in needs an MLP; this model is attention-only.")
        self.cfg.use_hook_mlp_in = use_hook_mlp_in

    def set_use_attn_in(self, use_attn_in: bool) -> None:
        """Gives each head its own ``hook_attn_in``, ``[batch pos head d_model]``.

        Raises:
            InputError: If keys and values have fewer heads than queries.
        """
        if anatomy.layer_of(self.cfg, 0).attends.is_grouped:
            raise InputError(
                "hook_attn_in has one copy a query head, which grouped-query attention cannot use; "
                "use set_use_split_qkv_input instead."
            )
        self.cfg.use_attn_in = use_attn_in

    def set_ungroup_grouped_query_attention(self, ungroup_grouped_query_attention: bool) -> None:
        """Repeats keys and values before ``hook_k`` and ``hook_v``, so that they have one head a query head."""
        self.cfg.ungroup_grouped_query_attention = ungroup_grouped_query_attention

    def check_hooks_to_add(
        self,
        hook_point: nn.Module,
        hook_point_name: str,
        hook: Callable[..., object],
        dir: str = "fwd",
        is_permanent: bool = False,
        prepend: bool = False,
    ) -> None:
        """Refuses a hook on a hook point that is switched off, where it would never run.

        Args:
            hook_point: The hook point, not looked at.
            hook_point_name: Its full name.
            hook: The function, not looked at; like the three below, there for subclasses that override this.
            dir: "fwd" or "bwd".
            is_permanent: Whether the hook outlives ``reset_hooks``.
            prepend: Whether the hook runs before those already there.

        Raises:
            InputError: If the switch of that hook point is off.
        """
        for ending, switch in _SWITCH_OF_HOOK.items():
            if hook_point_name.endswith(ending) and not getattr(self.cfg, switch):
                raise InputError(f"{hook_point_name} is computed only while cfg.{switch} is on: set_{switch}(True).")
