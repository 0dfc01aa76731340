"""Which fields of a config shape a block is known to ``anatomy`` alone."""

import ast
from pathlib import Path

import transformer_lens

PACKAGE = Path(transformer_lens.__file__).parent
# Where these fields are declared, and where they are turned into records.
READERS = ("anatomy", "config")
FIELDS = frozenset(
    """
    normalization_type norm_placement norm_weight norm_bias norm_weight_offset norm_casts_late has_final_norm final_rms
    use_normalization_before_and_after post_embedding_ln
    parallel_attn_mlp attn_only gated_mlp gated_mlp_bias residual_multiplier embedding_multiplier logit_multiplier
    output_logits_soft_cap
    attn_types window_size use_local_attn attention_dir n_key_value_heads use_attn_scale attn_scale
    scale_attn_by_inverse_layer_idx attn_scores_soft_cap use_attention_sinks clip_qkv use_logn_attn
    use_qk_norm qk_norm_kind qk_norm_after_rotary alibi_in_bfloat16
    positional_embedding_type rotary_layers rotary_base rotary_base_local rotary_dim rotary_adjacent_pairs rope_scaling
    rotary_scaling_factor use_dynamic_ntk_rope yarn_global_attn_only
    num_experts experts_per_token expert_layers d_expert d_shared_expert gates_shared_expert router_bias expert_bias
    expert_clamp norm_topk_prob router_scores router_correction router_groups router_groups_chosen router_multiplier
    router_epsilon router_floor router_jitter router_is_precise
    """.split()
)


def is_config(node):
    """Whether an expression is a config by its name: ``cfg``, ``self.cfg``, ``model.cfg``, ``config``."""
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name.endswith(("cfg", "config"))


def reads(source):
    """Yields the lines that take such a field of a config: an attribute, ``getattr`` or a key of its dict."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in FIELDS and is_config(node.value):
            yield node.lineno, node.attr
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "vars"):
            named = [one.value for one in node.args[1:2] if isinstance(one, ast.Constant)]
            if is_config(node.args[0]) and (named and named[0] in FIELDS):
                yield node.lineno, named[0]
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and node.slice.value in FIELDS:
            owner = ast.unparse(node.value)
            if "cfg" in owner and ("__dict__" in owner or "to_dict" in owner or "vars(" in owner):
                yield node.lineno, node.slice.value


def test_no_other_package_reads_a_field_that_shapes_a_block():
    offenders = [
        f"{path.relative_to(PACKAGE)}:{line} reads {field}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] not in READERS
        for line, field in reads(path.read_text())
    ]
    assert not offenders, "\n".join(offenders)


def test_the_test_sees_what_it_looks_for():
    found = [field for _, field in reads("a = cfg.gated_mlp\nb = self.model.cfg.clip_qkv\ngetattr(cfg, 'final_rms')")]
    assert sorted(found) == ["clip_qkv", "final_rms", "gated_mlp"]
    assert not list(reads("self.attn_scale\nrecord.window\nx['attn_only']"))


def test_every_field_is_one_and_is_read_by_the_records():
    from transformer_lens import HookedTransformerConfig

    assert set(HookedTransformerConfig.__dataclass_fields__) >= FIELDS
    source = "".join(path.read_text() for reader in READERS for path in sorted((PACKAGE / reader).rglob("*.py")))
    tree = ast.parse("\n".join(line for line in source.splitlines() if not line.startswith("from __future__")))
    taken = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    taken |= {
        node.slice.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant)
    }
    assert taken >= FIELDS
