"""A script for an environment with circuit-tracer and this package: circuit-tracer builds on our HookedTransformer."""

from importlib.metadata import version

import torch
from circuit_tracer.replacement_model.replacement_model_transformerlens import TransformerLensReplacementModel

import transformer_lens
from transformer_lens import HookedTransformer, HookedTransformerConfig

assert version("transformer-lens") == transformer_lens.__version__, "another transformer-lens was installed over ours"
assert issubclass(TransformerLensReplacementModel, HookedTransformer)

config = HookedTransformerConfig(
    n_layers=2, d_model=14, n_ctx=11, d_head=8, n_heads=3, d_mlp=20, d_vocab=13, act_fn="gelu", device="cpu", seed=1
)
model = HookedTransformer(config)
assert model(torch.arange(5)[None]).shape == (1, 5, 13)
print("circuit-tracer", version("circuit-tracer"), "builds on transformer-lens", transformer_lens.__version__)
