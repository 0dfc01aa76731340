"""A hook changes activations only: no parameter, no borrowed model, no file, and not what another hook point saw."""

import hashlib
import random
import re

import pytest
import torch

from tests.fallback import may_fall_back
from tests.tiny_models import VARIANTS, make_model, save
from transformer_lens import HookedTransformer

ALONE, MORE = 1, 3
SWITCHES = {
    "plain": {},
    "results": {"use_attn_result": True, "use_hook_mlp_in": True},
    "split": {"use_split_qkv_input": True, "use_attn_result": True, "use_hook_mlp_in": True},
    "attn_in": {"use_attn_in": True},
    "ungrouped": {"ungroup_grouped_query_attention": True},
    "ungrouped-split": {"ungroup_grouped_query_attention": True, "use_split_qkv_input": True},
}


def tokens_of(model, rows):
    drawn = torch.randint(0, model.cfg.d_vocab, (rows, 6), generator=torch.Generator().manual_seed(1))
    return drawn.to(model.cfg.device)


def switched(model, switches):
    """Sets the switches of a model; skips what its attention has no use for."""
    grouped = model.cfg.n_key_value_heads is not None
    if (switches == "attn_in" and grouped) or ("ungrouped" in switches and not grouped):
        pytest.skip("this attention has no such inputs")
    for name, value in SWITCHES[switches].items():
        setattr(model.cfg, name, value)
    return model


def changed(tensor):
    """Returns another value for every element; token numbers stay token numbers, and minus infinity stays."""
    return tensor.flip(-1) if not tensor.is_floating_point() else tensor * 0.75 + 0.03125


def write(tensor, hook):
    if tensor.numel():
        tensor.copy_(changed(tensor.clone()))


def replace(tensor, hook):
    return changed(tensor)


def run(model, hook, given, **where):
    """Runs with one hook on every point and every gradient, and returns all that can be seen of it.

    The caches hold the tensors themselves, as they were before the hook.
    """
    model.zero_grad()
    cache, keep, keep_gradients = model.get_caching_hooks(incl_bwd=True)
    everywhere = [(lambda name: True, hook)]
    with model.hooks(keep, keep_gradients), model.hooks(everywhere, everywhere):
        logits = model(given, **where)
        logits.float().log_softmax(-1).square().mean().backward()
    gradients = {
        f"grad of {name}": parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return {"logits": logits.detach(), **cache, **gradients}


def differ(a, b):
    """Whether two tensors differ by more than the order of a sum."""
    infinite = torch.isinf(b)
    a, b = a.double().masked_fill(torch.isinf(a), 0), b.double().masked_fill(infinite, 0)
    return bool((a - b).abs().max() > 1e-4 * b.abs().max() + 1e-7)


def digest(tensors):
    return {
        name: hashlib.sha256(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
        for name, value in tensors
    }


# The first variant of each kind of config.
FIRSTS = list({variant.config_class: name for name, variant in reversed(VARIANTS.items())}.values())
# Whose every way is tried: heads that are grouped, and heads that are not.
IN_EVERY_WAY = ("gpt2", "llama-gqa")
WAYS = [(processed, switches) for processed in (False, True) for switches in SWITCHES]


def ways():
    """Every way to load and run for two variants, one in turn for each of the others."""
    turn = 0
    for name, variant in VARIANTS.items():
        grouped = variant.settings.get("num_key_value_heads") not in (None, variant.settings.get("num_attention_heads"))
        useless = ("attn_in",) if grouped else ("ungrouped", "ungrouped-split")
        useful = [way for way in WAYS if way[1] not in useless]
        count = len(useful) if name in IN_EVERY_WAY else 1
        for processed, switches in (useful[(turn + step) % len(useful)] for step in range(count)):
            how = "processed" if processed else "as-it-is"
            yield pytest.param(name, processed, switches, id=f"{name}-{how}-{switches}")
        turn += count


@pytest.mark.parametrize(("variant", "processed", "switches"), list(ways()))
def test_writing_in_place_is_replacing(variant, processed, switches):
    """At every point at once, forwards and backwards; for one row, several, and from a layer on."""
    hf_model = make_model(VARIANTS[variant])
    theirs = digest(hf_model.state_dict().items())
    load = HookedTransformer.from_pretrained if processed else HookedTransformer.from_pretrained_no_processing
    with may_fall_back("assign"):
        model = switched(load(hf_model=hf_model, load_mode="assign", device="cpu"), switches)
    model.requires_grad_(True)
    ours = digest(model.named_parameters())
    for rows in (ALONE, MORE):
        tokens = tokens_of(model, rows)
        residual = torch.randn(rows, 6, model.cfg.d_model)
        for given, where in ((tokens, {}), (residual, {"start_at_layer": 1})):
            before = given.clone()
            written, replaced = run(model, write, given, **where), run(model, replace, given, **where)
            assert written.keys() == replaced.keys()
            different = [name for name, value in written.items() if differ(value, replaced[name])]
            assert not different, different[:8]
            assert torch.equal(given, before)
    assert digest(model.named_parameters()) == ours
    assert digest(hf_model.state_dict().items()) == theirs


@pytest.mark.parametrize("variant", FIRSTS)
def test_each_point_alone(variant, tmp_path):
    """No other point's copy stands between this one's tensor and a weight; the file is mapped.

    Points of one name in several layers or experts are met in one of them, drawn from the variant's name.
    """
    save(VARIANTS[variant], tmp_path)
    file = tmp_path / "model.safetensors"
    bytes_before = file.read_bytes()
    model = HookedTransformer.from_pretrained_no_processing(tmp_path, dtype="auto", device="cpu")
    model = switched(model, "plain" if model.cfg.n_key_value_heads is None else "split")
    model.cfg.use_hook_tokens = False
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    tokens = tokens_of(model, ALONE)
    ran = set()
    with torch.no_grad():
        plain = model(tokens)
        _, seen = model.run_with_cache(tokens)
        order = list(seen)
        named_alike = {}
        for name in model.hook_dict:
            named_alike.setdefault(re.sub(r"\.\d+\.", ".*.", name), []).append(name)
        draw = random.Random(variant)
        for name in map(draw.choice, named_alike.values()):

            def note_and_write(tensor, hook):
                ran.add(hook.name)
                write(tensor, hook)

            with model.hooks(fwd_hooks=[(name, note_and_write)]) if may_run(model, name) else model.hooks():
                _, seen_now = model.run_with_cache(tokens)
            for earlier in order[: order.index(name)] if name in seen else []:
                assert torch.equal(seen_now[earlier], seen[earlier]), (name, earlier)
        assert torch.equal(model(tokens), plain)
    wrong = [name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])]
    assert not wrong, wrong
    assert file.read_bytes() == bytes_before
    assert len(ran) > 15


def may_run(model, name):
    """Whether a point may be hooked under the switches as they are."""
    try:
        model.check_hooks_to_add(model.hook_dict[name], name, write)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_module_returns_memory_of_a_weight(variant):
    """Also a hook of torch's own on any module, ours or a client's, cannot write into one."""
    model = HookedTransformer.from_pretrained_no_processing(
        hf_model=make_model(VARIANTS[variant]), device="cpu", load_mode="auto"
    )
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    handed_out = {}

    def look(module, inputs, output):
        if isinstance(output, torch.Tensor):
            handed_out[module.name] = output.untyped_storage().data_ptr()

    for module in model.mod_dict.values():
        module.register_forward_hook(look)
    model(tokens_of(model, ALONE))
    assert len(handed_out) > 10 and not [name for name, where in handed_out.items() if where in weights]
