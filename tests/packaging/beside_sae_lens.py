"""A script for an environment with sae-lens and this package: sae-lens sees our HookedTransformer and runs on it."""

from importlib.metadata import version

import sae_lens
import torch
from sae_lens import SAE, HookedSAETransformer, StandardSAE, StandardSAEConfig

import transformer_lens
from transformer_lens import HookedTransformer, HookedTransformerConfig

assert version("transformer-lens") == transformer_lens.__version__, "another transformer-lens was installed over ours"
assert issubclass(HookedSAETransformer, HookedTransformer) and issubclass(SAE, torch.nn.Module)

config = HookedTransformerConfig(
    n_layers=2, d_model=14, n_ctx=11, d_head=8, n_heads=3, d_mlp=20, d_vocab=13, act_fn="gelu", device="cpu", seed=1
)
model = HookedSAETransformer(config)
sae = StandardSAE(StandardSAEConfig(d_in=14, d_sae=30, device="cpu"))
sae.cfg.metadata.hook_name = "blocks.1.hook_resid_pre"
tokens = torch.arange(5)[None]
plain, cache = model.run_with_cache_with_saes(tokens, saes=[sae])
assert cache["blocks.1.hook_resid_pre.hook_sae_acts_post"].shape == (1, 5, 30)
assert torch.equal(model(tokens), HookedTransformer.forward(model, tokens))
assert not torch.equal(plain, model(tokens))
print("sae-lens", sae_lens.__version__, "runs on", HookedTransformer.__module__, transformer_lens.__version__)
