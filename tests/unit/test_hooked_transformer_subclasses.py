"""What programs that subclass, wrap and hook the model rely on."""

import copy
import pickle

import pytest
import torch
from torch import nn

from tests.unit.small_transformers import BASE, KINDS, make_model, make_tokenizer, make_tokens
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.hook_points import HookPoint
from transformer_lens.HookedRootModule import HookedRootModule
from transformer_lens.HookedTransformer import HookedTransformer, Output

CLOSE = {"atol": 2e-5, "rtol": 1e-4}
EVERY_KIND = pytest.mark.parametrize("kind", sorted(KINDS))


class Counting(HookedTransformer):
    """Replaces each MLP's forward on the instance, and overrides forward, as SAELens does."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls = []
        for block in self.blocks:
            block.mlp.hook_in = HookPoint()
            block.mlp.forward = self.with_input_hook(block.mlp, block.mlp.forward)
        self.setup()

    @staticmethod
    def with_input_hook(mlp, forward):
        def replaced(x):
            return forward(mlp.hook_in(x))

        return replaced

    def forward(self, input, **kwargs):
        self.calls.append(sorted(kwargs))
        return super().forward(input, **kwargs)


def test_internal_calls_pass_all_but_the_input_by_keyword():
    plain, model = make_model(tokenizer=make_tokenizer()), make_model(tokenizer=make_tokenizer(), cls=Counting)
    tokens = make_tokens()
    assert torch.equal(model(tokens), plain(tokens))
    _, cache = model.run_with_cache(tokens, names_filter=lambda name: name.endswith("hook_in"), stop_at_layer=2)
    assert list(cache) == ["blocks.0.mlp.hook_in", "blocks.1.mlp.hook_in"]
    arguments = {"max_new_tokens": 3, "do_sample": False, "verbose": False}
    assert model.generate(["a b", "c"], **arguments) == plain.generate(["a b", "c"], **arguments)
    embeds = model.embed(tokens)
    assert torch.equal(model.generate(embeds, **arguments), plain.generate(embeds, **arguments))
    logits, loss = model.run_with_hooks(tokens, return_type="both", loss_per_token=True, fwd_hooks=[])
    assert logits.shape == (4, 7, 29) and loss.shape == (4, 6)
    assert len(model.calls) > 8


class Splice(nn.Module):
    """Takes the place of a hook point, and has hook points of its own; it has no ``fwd_hooks``."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor
        self.hook_sae_acts_post = HookPoint()

    def forward(self, value):
        return self.hook_sae_acts_post(value) * self.factor


@EVERY_KIND
@pytest.mark.parametrize(
    "place", ["hook_resid_pre", "hook_attn_out", "attn.hook_z", "attn.hook_pattern", "attn.hook_v", "attn.hook_q"]
)
def test_a_module_in_the_place_of_a_hook_point_is_called(kind, place):
    model, tokens = make_model(kind), make_tokens()
    expected, (path, name) = model(tokens), f"blocks.1.{place}".rsplit(".", 1)
    parent = model.get_submodule(path)
    setattr(parent, name, Splice())
    model.setup()
    inner = f"blocks.1.{place}.hook_sae_acts_post"
    assert inner in model.hook_dict and f"blocks.1.{place}" not in model.hook_dict
    logits, cache = model.run_with_cache(tokens)
    torch.testing.assert_close(logits, expected, **CLOSE)
    assert inner in cache
    getattr(parent, name).factor = -1.0
    assert (model(tokens) - expected).abs().max() > 1e-3
    setattr(parent, name, HookPoint())
    model.setup()
    torch.testing.assert_close(model(tokens), expected, **CLOSE)


class OldMLP(nn.Module):
    """Wraps an MLP, as circuit-tracer does."""

    def __init__(self, old_mlp):
        super().__init__()
        self.old_mlp = old_mlp
        self.hook_in, self.hook_out = HookPoint(), HookPoint()

    def forward(self, x):
        return self.hook_out(self.old_mlp(self.hook_in(x)))


class OldUnembed(nn.Module):
    def __init__(self, old_unembed):
        super().__init__()
        self.old_unembed = old_unembed
        self.hook_pre, self.hook_post = HookPoint(), HookPoint()

    @property
    def W_U(self):
        return self.old_unembed.W_U

    @property
    def b_U(self):
        return self.old_unembed.b_U

    def forward(self, x):
        return self.hook_post(self.old_unembed(self.hook_pre(x)))


@EVERY_KIND
def test_wrapped_mlps_and_unembedding(kind):
    model, tokens = make_model(kind), make_tokens()
    expected, W_U = model(tokens), model.W_U
    for block in model.blocks:
        if not model.cfg.attn_only:
            block.mlp = OldMLP(block.mlp)
    model.unembed = OldUnembed(model.unembed)
    model.setup()
    torch.testing.assert_close(model(tokens), expected, **CLOSE)
    assert model.W_U is W_U and "unembed.old_unembed.W_U" in model.state_dict()
    model.add_hook("unembed.hook_pre", lambda value, hook: torch.zeros_like(value))
    bias = model.b_U
    cap = model.cfg.output_logits_soft_cap
    bias = bias if cap <= 0 else cap * torch.tanh(bias / cap)
    torch.testing.assert_close(model(tokens), bias.expand_as(expected))
    if not model.cfg.attn_only:
        assert "blocks.0.mlp.old_mlp.W_in" in model.state_dict()
        assert "blocks.2.mlp.hook_out" in model.run_with_cache(tokens)[1]


def test_a_hook_point_may_hang_under_a_hook_point():
    model, tokens = make_model(), make_tokens()
    point = HookPoint()
    model.blocks[1].hook_mlp_out.hook_out_grad = point
    model.setup()
    model.setup()
    assert model.hook_dict["blocks.1.hook_mlp_out.hook_out_grad"] is point
    assert point.name == "blocks.1.hook_mlp_out.hook_out_grad" and point.layer() == 1
    model.add_hook("blocks.1.hook_mlp_out", lambda value, hook: hook.hook_out_grad(value))
    seen = []
    model.add_hook(point.name, lambda value, hook: seen.append(value.shape))
    model(tokens)
    assert seen == [(4, 7, 14)]


@EVERY_KIND
def test_frozen_patterns_and_scales_linearise_the_model(kind):
    model = make_model(kind)
    for parameter in model.parameters():
        parameter.requires_grad_(False)

    def freeze(value, hook):
        return value.detach()

    def root(value, hook):
        value.requires_grad = True
        held.append(value)
        return value

    held = []
    scales = [name for name in model.hook_dict if name.endswith(("hook_pattern", "hook_scale"))]
    for name in scales:
        model.add_hook(name, freeze, is_permanent=True)
    model.add_hook("hook_embed", root, is_permanent=True)
    model.reset_hooks()
    tokens = make_tokens(batch=1)
    residual = model(tokens[0], stop_at_layer=1)
    assert residual.shape == (1, 7, 14) and held[0].is_leaf
    for index in range(3):
        residual[0, -1, index].backward(retain_graph=True)
    assert held[0].grad.abs().sum() > 0
    model.reset_hooks(including_permanent=True)
    assert not any(point.fwd_hooks for point in model.hook_points())


@EVERY_KIND
def test_an_edited_pattern_drives_the_result(kind):
    model, tokens = make_model(kind), make_tokens()

    def look_at_self(value, hook):
        return torch.eye(7).expand_as(value)

    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_pattern", look_at_self)]):
        _, cache = model.run_with_cache(tokens)
    values = cache["v", 0].repeat_interleave(6 // cache["v", 0].shape[2], dim=2)
    torch.testing.assert_close(cache["z", 0], values, **CLOSE)


@EVERY_KIND
@pytest.mark.parametrize("name", ["q", "k", "v", "z"])
def test_an_edit_in_place_touches_one_activation_of_one_head(kind, name):
    model, tokens = make_model(kind), make_tokens()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    names = [f"blocks.1.attn.hook_{part}" for part in "qkvz"]
    _, plain = model.run_with_cache(tokens)
    plain = {key: plain[key].clone() for key in names}
    kept = {}

    def zero_head(value, hook):
        value[:, :, 2] = 0.0

    def keep(value, hook):
        kept[hook.name] = value.clone()

    hooks = [(f"blocks.1.attn.hook_{name}", zero_head)] + [(key, keep) for key in names]
    logits = model.run_with_hooks(tokens, fwd_hooks=hooks)
    for key in names:
        if key.endswith("_" + name):
            assert kept[key][:, :, 2].abs().max() == 0
            rest = [head for head in range(kept[key].shape[2]) if head != 2]
            torch.testing.assert_close(kept[key][:, :, rest], plain[key][:, :, rest], **CLOSE)
        elif not key.endswith("z"):
            torch.testing.assert_close(kept[key], plain[key], **CLOSE)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert (logits - model(tokens)).abs().max() > 1e-4


def test_gradients_reach_backward_hooks():
    model, tokens, seen = make_model(), make_tokens(), {}

    def keep(gradient, hook):
        seen[hook.name] = gradient.clone()

    with model.hooks(bwd_hooks=[("blocks.2.hook_resid_post", keep), ("blocks.0.attn.hook_z", keep)]):
        model(tokens, return_type="loss").backward()
    assert seen["blocks.2.hook_resid_post"].shape == (4, 7, 14)
    assert seen["blocks.0.attn.hook_z"].shape == (4, 7, 6, 8)
    cache, forward, backward = model.get_caching_hooks(["hook_embed"], incl_bwd=True)
    with model.hooks(fwd_hooks=forward, bwd_hooks=backward):
        model(tokens, return_type="loss").backward()
    assert set(cache) == {"hook_embed", "hook_embed_grad"}


def test_the_dicts_are_plain_and_rebuilt():
    model = make_model()
    before = list(model.hook_dict)
    assert type(model.hook_dict) is dict and type(model.mod_dict) is dict and "" not in model.mod_dict
    for _ in range(3):
        model.setup()
    assert list(model.hook_dict) == before
    assert model.mod_dict["blocks.1.attn"] is model.blocks[1].attn


def test_the_mask_of_attention_may_be_read_and_set():
    model = make_model("local")
    for block in model.blocks:
        assert block.attn.mask.shape == (0, 0) and block.attn.attn_type in ("global", "local")
        block.attn.mask = torch.tril(torch.ones(23, 23)).bool()
    assert model(make_tokens()).shape == (4, 7, 29)


def test_old_state_dicts_load_strictly():
    model, other = make_model("llama_gqa"), make_model("llama_gqa", seed=5)
    state = dict(model.state_dict())
    for layer in range(3):
        state[f"blocks.{layer}.attn.mask"] = torch.tril(torch.ones(23, 23)).bool()
        state[f"blocks.{layer}.attn.IGNORE"] = torch.tensor(-torch.inf)
        state[f"blocks.{layer}.attn.rotary_sin"] = state[f"blocks.{layer}.attn.rotary_cos"] = torch.zeros(23, 8)
    other.load_state_dict(state, strict=True)
    assert torch.equal(other(make_tokens()), model(make_tokens()))


def test_a_subclass_may_skip_the_constructor():
    class Own(HookedTransformer):
        """Builds itself, as mamba-lens does."""

        def __init__(self, cfg):
            super(HookedTransformer, self).__init__()
            self.cfg = cfg
            self.embed = nn.Embedding(cfg.d_vocab, cfg.d_model)
            self.hook_out = HookPoint()
            self.setup()

        def forward(self, input, **kwargs):
            return self.hook_out(self.embed(input))

    model = Own(HookedTransformerConfig(**BASE))
    assert model.tokenizer is None and model.dataset is None and model.load_report is None
    _, cache = model.run_with_cache(make_tokens(), names_filter="hook_out")
    assert cache["hook_out"].shape == (4, 7, 14)
    with pytest.raises(ValueError, match="set_tokenizer"):
        model.to_tokens("a")


def test_bases_are_open():
    class Other:
        """A second base with state of its own."""

    class Both(HookedTransformer, Other):
        pass

    assert isinstance(Both(HookedTransformerConfig(**BASE)), HookedRootModule)
    assert type(HookedTransformer) is type


def test_a_model_can_be_copied_and_pickled():
    model, tokens = make_model(tokenizer=make_tokenizer()), make_tokens()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(tokens), model(tokens))
        with torch.no_grad():
            other.embed.W_E.zero_()
        assert other.hook_dict["hook_embed"] is other.hook_embed
    assert model.embed.W_E.abs().sum() > 0
    assert pickle.loads(pickle.dumps(Output(tokens.float(), tokens.float()))).logits.shape == (4, 7)


def test_training_lowers_the_loss():
    model, tokens = make_model("llama_gqa"), make_tokens()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        loss = model(tokens, return_type="loss")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
