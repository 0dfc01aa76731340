"""How files and live models hold the experts of a mixture."""

from typing import Any

from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import OneOf, Recipe, Take

_MATRICES = {"W_in": "d_expert d_model", "W_gate": "d_expert d_model", "W_out": "d_model d_expert"}


def experts(where: str, names: dict[str, str], fused: str) -> dict[str, Recipe]:
    """Returns the recipes of experts that have a tensor each in files, and are fused in models of transformers 5.

    Args:
        where: Template of the start of an expert's keys in files, with ``{e}``.
        names: What the file calls W_in, W_gate and W_out.
        fused: Template of the start of the keys of the fused tensors.
    """
    out: dict[str, Recipe] = {}
    for ours, theirs in names.items():
        alone = Take(f"{where}.{theirs}.weight", _MATRICES[ours])
        if ours == "W_out":
            together = Take(f"{fused}.down_proj", "expert d_model d_expert", pick={"expert": "{e}"})
        else:
            half = 0 if ours == "W_gate" else 1
            pick: dict[str, int | str] = {"expert": "{e}", "gate_up": half}
            together = Take(f"{fused}.gate_up_proj", "expert (gate_up d_expert) d_model", pick=pick)
        out[f"mlp.experts.{{e}}.{ours}.weight"] = OneOf((alone, together))
    return out


def shared_expert(*where: str) -> dict[str, Recipe]:
    """Returns the recipes of the expert that sees every token; each of `where` may begin its keys."""
    names = {"W_gate": "gate_proj", "W_in": "up_proj", "W_out": "down_proj"}
    axes = {name: layout.replace("d_expert", "d_shared") for name, layout in _MATRICES.items()}
    return {
        f"mlp.shared_expert.{ours}.weight": Take(tuple(f"{start}.{theirs}.weight" for start in where), axes[ours])
        for ours, theirs in names.items()
    }


def read_sigmoid(config: ConfigView, n_experts: int | None, n_chosen: int | None) -> dict[str, Any]:
    """Returns the fields of a router with sigmoid scores, a correction and groups; the numbers are defaults.

    Raises:
        CorruptCheckpointError: Groups do not divide the experts, or are too small to choose from.
    """
    name = config.spelling("n_routed_experts", "num_local_experts", "num_experts")
    experts, chosen = config.size(name, n_experts), config.size("num_experts_per_tok", n_chosen)
    groups, in_use = config.size("n_group", 1), config.size("topk_group", 1)
    size = config.parts(name, experts, "n_group", groups)
    if in_use > groups or chosen > in_use * size or size < min(groups, 2):
        raise config.corrupt(
            f"{chosen} of {experts} experts are chosen of topk_group = {in_use} of n_group = {groups} groups"
        )
    return {
        "num_experts": experts,
        "experts_per_token": chosen,
        "router_scores": "sigmoid",
        "router_correction": True,
        "router_is_precise": True,
        "router_groups": groups,
        # All of one group, or of all groups, is no choice.
        "router_groups_chosen": in_use,
        "router_epsilon": 1e-20,
        "router_multiplier": config.number("routed_scaling_factor", 1.0),
    }


def read_shared(config: ConfigView, name: str, if_absent: int | None, d_expert: int) -> dict[str, Any]:
    """Returns the width of experts that see every token, which stand side by side as one; 0 of them are none."""
    return {"d_shared_expert": config.count(name, if_absent) * d_expert or None}


def sparse_from(config: ConfigView, name: str, if_absent: int, n_layers: int) -> dict[str, Any]:
    """Returns which layers are mixtures, where a field says how many of the first ones are not."""
    first = config.check_size(name, config.take(name, if_absent), 100_000, smallest=0)
    return {"expert_layers": [layer >= first for layer in range(n_layers)]}


def sparse_by_type(config: ConfigView, n_layers: int, n_dense: int) -> dict[str, Any]:
    """Returns which layers are mixtures, by ``mlp_layer_types``; without it all but the first `n_dense`."""
    kinds = config.take("mlp_layer_types", ["dense"] * min(n_dense, n_layers) + ["sparse"] * (n_layers - n_dense))
    if not isinstance(kinds, (list, tuple)) or len(kinds) != n_layers:
        raise config.corrupt(f"mlp_layer_types = {str(kinds)[:60]} is not a list of {n_layers}, one a layer")
    strange = [kind for kind in kinds if kind not in ("dense", "sparse")]
    if strange:
        config.problems.append(f"mlp_layer_types: {strange[0]!r} is neither 'dense' nor 'sparse'")
    return {"expert_layers": [kind == "sparse" for kind in kinds]}


IGNORED = {
    "router_aux_loss_coef": "of the loss in training",
    "output_router_logits": "what transformers returns",
}
AHEAD = ("num_nextn_predict_layers", "num_mtp_layers")
"""Fields that count layers behind the last, which predict tokens further ahead."""
IGNORED_AHEAD = dict.fromkeys(AHEAD, "layers that predict tokens further ahead, which are dropped")
