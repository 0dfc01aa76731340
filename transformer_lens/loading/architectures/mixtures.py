"""How files and live models hold the experts of a mixture."""

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


def shared_expert(where: str) -> dict[str, Recipe]:
    """Returns the recipes of the expert that sees every token; `where` begins its keys."""
    sizes = {"d_shared": "shared_expert_intermediate_size"}
    return {
        "mlp.shared_expert.W_gate.weight": Take(f"{where}.gate_proj.weight", "d_shared d_model", sizes=sizes),
        "mlp.shared_expert.W_in.weight": Take(f"{where}.up_proj.weight", "d_shared d_model", sizes=sizes),
        "mlp.shared_expert.W_out.weight": Take(f"{where}.down_proj.weight", "d_model d_shared", sizes=sizes),
    }
