"""A mixture of experts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from transformer_lens import anatomy
from transformer_lens.components.linear import affine
from transformer_lens.components.matrix_owner import MatrixOwner
from transformer_lens.components.mlps.can_be_used_as_mlp import CanBeUsedAsMLP
from transformer_lens.components.mlps.routing import in_best_groups, sparsemixer, weigh
from transformer_lens.components.parameter import new_parameter
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.factories.activation_function_factory import ActivationFunctionFactory
from transformer_lens.hook_points import HookPoint

# Of gpt-oss's GLU: gate * sigmoid(1.702 gate), an approximation of GELU.
_SIGMOID_SLOPE = 1.702


class Projection(MatrixOwner):
    """``x weight^T + bias``, with ``weight`` [outputs inputs] as ``nn.Linear`` has it."""

    def __init__(self, cfg: HookedTransformerConfig, d_in: int, d_out: int, has_bias: bool) -> None:
        super().__init__()
        self.cfg = cfg
        self.weight = new_parameter(d_out, d_in, dtype=cfg.dtype)
        self.bias = new_parameter(d_out, dtype=cfg.dtype, fill=0.0) if has_bias else None

    def forward(self, x: Float[Tensor, "*tokens d_in"]) -> Float[Tensor, "*tokens d_out"]:
        """Returns the product."""
        packing = self.packing.get("weight")
        if packing is not None:
            return affine(x, self.weight, self.bias, packing)
        return F.linear(x, self.weight, self.bias)


class MoEGatedMLP(nn.Module):
    """One expert: ``(act(x W_gate^T) * (x W_in^T)) W_out^T``; with a clamp, gpt-oss's form of it.

    With ``cfg.use_expert_hooks`` it has hook points, ``hook_gate``, ``hook_pre`` and ``hook_post``, which see
    ``[token d_expert]``: only the tokens that were sent to it.
    """

    def __init__(self, cfg: dict | HookedTransformerConfig, width: int | None = None) -> None:
        """Builds the expert.

        Args:
            cfg: Of the model.
            width: Hidden width; None means that of the mixture's experts.
        """
        super().__init__()
        self.cfg = HookedTransformerConfig.unwrap(cfg)
        self.anatomy = anatomy.mixture_of(self.cfg)
        self.d_mlp = self.anatomy.d_expert if width is None else width
        d_model, has_bias = self.cfg.d_model, self.anatomy.has_bias
        self.W_gate = Projection(self.cfg, d_model, self.d_mlp, has_bias("W_gate"))
        self.W_in = Projection(self.cfg, d_model, self.d_mlp, has_bias("W_in"))
        self.W_out = Projection(self.cfg, self.d_mlp, d_model, has_bias("W_out"))
        self.act_fn = ActivationFunctionFactory.pick_activation_function(self.cfg)
        self.set_hook_points(self.cfg.use_expert_hooks)

    def set_hook_points(self, are_there: bool) -> None:
        """Makes the expert's hook points, or takes them away with what is hooked to them."""
        for name in ("hook_gate", "hook_pre", "hook_post"):
            if are_there and name not in self._modules:
                self.add_module(name, HookPoint("token d_expert"))
            elif not are_there and name in self._modules:
                del self._modules[name]

    def forward(self, x: Float[Tensor, "*tokens d_model"]) -> Float[Tensor, "*tokens d_model"]:
        """Returns what the expert makes of its tokens."""
        has_hooks = "hook_gate" in self._modules
        gate, linear = self.W_gate(x), self.W_in(x)
        if has_hooks:
            gate, linear = self.hook_gate(gate), self.hook_pre(linear)
        clamp = self.anatomy.clamp
        if clamp is None:
            hidden = self.act_fn(gate) * linear
        else:
            gate, linear = gate.clamp(max=clamp), linear.clamp(-clamp, clamp)
            hidden = (linear + 1) * gate * torch.sigmoid(_SIGMOID_SLOPE * gate)
        return self.W_out(self.hook_post(hidden) if has_hooks else hidden)


class MoE(CanBeUsedAsMLP):
    """``sum_e p_e expert_e(x)`` over the experts that a router chooses; `anatomy.Router` has its formulas.

    ``hook_expert_weights`` [batch pos expert] is p as it comes from the logits, before any is left out, divided or
    multiplied; ``hook_expert_indices`` [batch pos chosen] says which are taken. Tokens are grouped by expert: an expert
    that gets none is not run.
    """

    def __init__(self, config: dict | HookedTransformerConfig) -> None:
        super().__init__(config)
        self.mixture = anatomy.mixture_of(self.cfg)
        self.d_mlp = self.mixture.d_expert
        self.W_gate = Projection(self.cfg, self.cfg.d_model, self.mixture.n_experts, self.mixture.router.has_bias)
        if self.mixture.router.has_correction:
            precise = torch.promote_types(self.cfg.dtype, torch.float32)
            self.e_score_correction_bias = new_parameter(self.mixture.n_experts, dtype=precise, fill=0.0)
        self.experts = nn.ModuleList([MoEGatedMLP(self.cfg) for _ in range(self.mixture.n_experts)])
        if self.mixture.d_shared is not None:
            self.shared_expert = MoEGatedMLP(self.cfg, self.mixture.d_shared)
            if self.mixture.gates_shared:
                self.shared_expert_gate = Projection(self.cfg, self.cfg.d_model, 1, False)
        self.hook_expert_weights = HookPoint("batch pos expert")
        self.hook_expert_indices = HookPoint("batch pos chosen")

    def set_hook_points(self, are_there: bool) -> None:
        """Makes the hook points of every expert, or takes them away."""
        for module in self.modules():
            if isinstance(module, MoEGatedMLP):
                module.set_hook_points(are_there)

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """Returns what the layer writes to the residual stream."""
        weights, chosen = self._routed(x)
        tokens, flat_weights, flat_chosen = x.flatten(0, 1), weights.flatten(0, 1), chosen.flatten(0, 1)
        out = torch.zeros_like(tokens)
        # Grouped by expert: places that are next to each other in this order go to one expert.
        order = flat_chosen.flatten().argsort(stable=True)
        counts = torch.bincount(flat_chosen.flatten(), minlength=self.mixture.n_experts).tolist()
        start, n_chosen = 0, self.mixture.router.n_chosen
        for expert, count in enumerate(counts):
            if count:
                places = order[start : start + count]
                rows, columns = places // n_chosen, places % n_chosen
                share = self.experts[expert](tokens[rows]) * flat_weights[rows, columns, None]
                out.index_add_(0, rows, share.to(out.dtype))
                start += count
        if self.mixture.d_shared is not None:
            shared = self.shared_expert(tokens)
            out = out + (self.shared_expert_gate(tokens).sigmoid() * shared if self.mixture.gates_shared else shared)
        return out.view_as(x)

    def _routed(
        self, x: Float[Tensor, "batch pos d_model"]
    ) -> tuple[Float[Tensor, "batch pos chosen"], Int[Tensor, "batch pos chosen"]]:
        """Returns the weights and the numbers of the experts that each token is sent to."""
        router = self.mixture.router
        logits = self._logits(x)
        if router.scores == "sparsemixer":
            scores, first = sparsemixer(logits, router)
            weights, chosen = self.hook_expert_weights(scores), self.hook_expert_indices(first)
        else:
            scores = logits.softmax(-1) if router.scores == "softmax" else logits.sigmoid()
            weights = self.hook_expert_weights(scores)
            ranks = weights + self.e_score_correction_bias if router.has_correction else weights
            ranks = ranks if router.n_groups == 1 else in_best_groups(ranks, router)
            chosen = self.hook_expert_indices(ranks.topk(router.n_chosen, dim=-1).indices)
        taken = weigh(weights.gather(-1, chosen), router)
        return taken if router.is_precise else taken.to(x.dtype), chosen

    def _logits(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos expert"]:
        """Returns the router's logits, in float32 at least."""
        gate = self.W_gate
        if self.mixture.router.is_precise and gate.packing.get("weight") is None:
            precise = torch.promote_types(x.dtype, torch.float32)
            return F.linear(
                x.to(precise), gate.weight.to(precise), None if gate.bias is None else gate.bias.to(precise)
            )
        logits = gate(x)
        return logits if logits.dtype == torch.float64 else logits.float()
