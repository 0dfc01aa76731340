"""A user's script, as both type checkers read it; it is never run.

A line that ends in ``# wrong`` is one that each of them must refuse, and no other line is.
"""

from pathlib import Path

import torch
from torch import Tensor
from typing_extensions import assert_type

from transformer_lens import (
    ActivationCache,
    FactoredMatrix,
    HookedTransformer,
    HookedTransformerConfig,
    LoadReport,
    loading,
)
from transformer_lens.components.transformer_block import TransformerBlock
from transformer_lens.hook_points import HookPoint
from transformer_lens.hooked_transformer.output import Output
from transformer_lens.verification import Verification


class Mine(HookedTransformer):
    """A subclass, as SAELens and circuit-tracer have one."""


# -- loading -----------------------------------------------------------------------------------------------------------

model = HookedTransformer.from_pretrained(
    "gpt2", device="cpu", dtype="bfloat16", load_mode="assign", torch_dtype="auto"
)
assert_type(model, HookedTransformer)
assert_type(Mine.from_pretrained(Path("gpt2")), Mine)
assert_type(Mine.from_pretrained_no_processing("gpt2", first_n_layers=2, dtype=torch.float16), Mine)
assert_type(Mine.from_state_dict("gpt2", model.cfg, fold_ln=True), Mine)
assert_type(HookedTransformer.plan_load("gpt2", memory="16GiB", dtype="auto").fits, bool)
assert_type(model.load_report, LoadReport | None)
assert_type(model.cfg, HookedTransformerConfig)
assert_type(loading.verify("gpt2", show=False), Verification)
HookedTransformer.from_pretrained("gpt2", fold_layernorm=True)  # wrong
HookedTransformer.from_pretrained("gpt2", load_mode="assing")  # wrong
HookedTransformer.from_pretrained("gpt2", io="mmap")  # wrong
HookedTransformer.from_pretrained("gpt2", default_padding_side="top")  # wrong
HookedTransformer.from_pretrained("gpt2", device_map="auto")  # wrong
HookedTransformer.from_pretrained_no_processing("gpt2", devcie="cpu")  # wrong
HookedTransformer.plan_load("gpt2", first_n_layer=2)  # wrong

# -- running -----------------------------------------------------------------------------------------------------------

tokens = model.to_tokens("a text")
assert_type(tokens, Tensor)
assert_type(model("a text"), Tensor)
assert_type(model(tokens, "loss"), Tensor)
assert_type(model(tokens, return_type="loss", loss_per_token=True), Tensor)
assert_type(model(tokens, return_type="both"), Output)
assert_type(model(tokens, return_type="both").logits, Tensor)
assert_type(model(tokens, return_type=None), None)
assert_type(model(tokens, return_type=None, stop_at_layer=2), Tensor)
assert_type(model.forward(tokens), Tensor)
model(tokens, return_type="logit")  # wrong
model(tokens, prepend_boss=True)  # wrong


def ablate(z: Tensor, hook: HookPoint) -> Tensor:
    """Takes head 3 away."""
    z[:, :, 3] = 0.0
    return z


assert_type(model.run_with_hooks(tokens, fwd_hooks=[("blocks.0.attn.hook_z", ablate)]), Tensor)
assert_type(model.run_with_hooks(tokens, return_type="both", fwd_hooks=[(lambda name: True, ablate)]), Output)
named = [(f"blocks.{layer}.attn.hook_z", ablate) for layer in range(model.cfg.n_layers)]
loss = model.run_with_hooks(tokens, return_type="loss", fwd_hooks=named)
print(loss.item())
model.run_with_hooks(tokens, fwd_hook=named)  # wrong
with model.hooks(fwd_hooks=named) as hooked:
    assert_type(hooked, HookedTransformer)

# -- the cache ---------------------------------------------------------------------------------------------------------

logits, cache = model.run_with_cache(tokens, names_filter=["hook_embed"], remove_batch_dim=True)
assert_type(logits, Tensor)
assert_type(cache, ActivationCache)
assert_type(cache["pattern", 0], Tensor)
nothing, kept = model.run_with_cache(tokens, return_type=None, return_cache_object=False)
assert_type(nothing, None)
assert_type(kept, dict[str, Tensor])
assert_type(model.run_with_cache(tokens, "both"), tuple[Output, ActivationCache])
assert_type(model.run_with_cache(tokens, None), tuple[None, ActivationCache])
assert_type(model.run_with_hooks(tokens, None), None)
assert_type(cache.accumulated_resid(2, True), Tensor)
stack, labels = cache.decompose_resid(layer=-1, mode="mlp", return_labels=True)
assert_type(labels, list[str])
print(cache.stack_head_results(layer=-1, apply_ln=True) @ model.W_U, stack.shape)
model.run_with_cache(tokens, name_filter="hook_embed")  # wrong
cache.decompose_resid(mode="heads")  # wrong

# -- weights -----------------------------------------------------------------------------------------------------------

assert_type(model.blocks[0], TransformerBlock)
assert_type(model.W_Q[0, 1] @ model.W_E.T, Tensor)
assert_type(model.OV, FactoredMatrix)
print(model.blocks[0].attn.W_O.shape, model.unembed.W_U.shape, model.tokenizer.eos_token_id)
for block in model.blocks[1:]:
    assert_type(block.attn.hook_pattern, HookPoint)
    print(block.mlp.W_in.shape)
assert_type(model.to("cpu").eval(), HookedTransformer)
