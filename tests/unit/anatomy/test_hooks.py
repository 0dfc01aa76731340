"""What the records say of hook points, against what passes through those of a model: every kind of block."""

import pytest
import torch

from tests.unit.anatomy.kinds import KINDS, make
from tests.unit.small_transformers import BASE, make_tokens
from transformer_lens import HookedTransformerConfig, anatomy

SWITCHES = ("use_attn_result", "use_hook_mlp_in")


def records_of(kind):
    cfg = HookedTransformerConfig(**{**BASE, **KINDS[kind]})
    return tuple((hook.name, hook.axes) for hook in anatomy.hooks_of_model(anatomy.model_of(cfg)))


# One of those that have the same hook points.
DIFFERENT = {records_of(kind): kind for kind in KINDS}.values()


def sizes_of(cfg, tokens):
    sizes = dict(zip(("batch", "pos"), tokens.shape))
    sizes |= {"query_pos": sizes["pos"], "key_pos": sizes["pos"], "chosen": cfg.experts_per_token}
    return {**anatomy.axis_sizes(cfg), **sizes}


@pytest.mark.parametrize("kind", DIFFERENT)
@torch.no_grad()
def test_every_hook_point_has_a_record_and_its_shape(kind):
    model, tokens = make(kind), make_tokens()
    for switch in SWITCHES:
        setattr(model.cfg, switch, True)
    records = {hook.name: hook for hook in anatomy.hooks_of_model(anatomy.model_of(model.cfg))}
    # Those of experts, and that of tokens, are made where a config asks for them.
    made = {name for name, hook in records.items() if hook.switch not in ("use_hook_tokens", "use_expert_hooks")}
    if model.cfg.attn_only:
        # The block has them all the same; nothing passes.
        assert set(model.hook_dict) - made <= {
            f"blocks.{i}.{x}" for i in range(3) for x in ("hook_mlp_in", "hook_mlp_out")
        }
    else:
        assert set(model.hook_dict) == made
    _, cache = model.run_with_cache(tokens)
    sizes = sizes_of(model.cfg, tokens)
    on = {name for name in made if records[name].switch in ("", *SWITCHES)}
    if model.cfg.positional_embedding_type in ("alibi", "none"):
        on.discard("hook_pos_embed")
    assert set(cache) == on
    for name, value in cache.items():
        assert tuple(value.shape) == tuple(sizes[axis] for axis in records[name].axes.split()), name
        assert records[name].meaning


def test_experts_have_records_too():
    model = make("experts, one shared")
    model.cfg.use_expert_hooks = True
    for block in model.blocks:
        block.mlp.set_hook_points(True)
    model.setup()
    records = {hook.name for hook in anatomy.hooks_of_model(anatomy.model_of(model.cfg))}
    assert set(model.hook_dict) == records - {"hook_tokens"}
