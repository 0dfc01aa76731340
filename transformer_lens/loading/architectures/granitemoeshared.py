"""Granite's mixtures with an expert that sees every token, its first matrices fused."""

from dataclasses import replace

from transformer_lens.loading.architectures import llama_like
from transformer_lens.loading.architectures.granitemoe import GRANITE_MOE, ROTARY

GRANITE_MOE_SHARED = replace(
    GRANITE_MOE,
    name="GraniteMoeSharedForCausalLM",
    model_type="granitemoeshared",
    required={**llama_like.REQUIRED, **ROTARY, "mlp_bias": False},
)
