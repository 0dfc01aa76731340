"""Where TransformerLens 2.16.1 or 3.9.0 gives wrong numbers for the six families, ours are right.

Each case is a row of the measured list of upstream's errors (docs/differences.md tells them); the reference is
transformers on the same weights.
"""

import pytest
import torch

from tests.tiny_models import Variant, make_model, save
from transformer_lens import HookedTransformer

LLAMA = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 6,
         "num_key_value_heads": 3, "vocab_size": 113, "max_position_embeddings": 64}  # fmt: skip
GPT2 = {"n_embd": 48, "n_head": 6, "n_layer": 3, "vocab_size": 113, "n_positions": 64}
QWEN2 = {**LLAMA, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
PHI3 = {**LLAMA, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

CASES = {
    "llama d_mlp == d_model": ("LlamaConfig", {**LLAMA, "intermediate_size": 48}),
    "llama attention_bias and mlp_bias dropped": ("LlamaConfig", {**LLAMA, "attention_bias": True, "mlp_bias": True}),
    "llama linear rope ignored": ("LlamaConfig", {**LLAMA, "rope_scaling": {"rope_type": "linear", "factor": 3.0}}),
    "llama yarn ignored": (
        "LlamaConfig",
        {**LLAMA, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
    ),
    "llama3 scaling by path": (
        "LlamaConfig",
        {
            **LLAMA,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        },  # fmt: skip
    ),
    "llama head_dim": ("LlamaConfig", {**LLAMA, "head_dim": 12}),
    "llama dynamic past max_position": (
        "LlamaConfig",
        {**LLAMA, "max_position_embeddings": 32, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    ),
    "gpt2 scale_attn_weights false": ("GPT2Config", {**GPT2, "scale_attn_weights": False}),
    "gpt2 n_inner": ("GPT2Config", {**GPT2, "n_inner": 80}),
    "qwen2 use_sliding_window ignored": ("Qwen2Config", QWEN2),
    "phi3 sliding window": ("Phi3Config", {**PHI3, "sliding_window": 5}),
    "phi3 partial rotary": ("Phi3Config", {**PHI3, "partial_rotary_factor": 0.75}),
    "neox attention_bias false": (
        "GPTNeoXConfig",
        {
            "hidden_size": 48,
            "intermediate_size": 80,
            "num_hidden_layers": 2,
            "num_attention_heads": 6,
            "vocab_size": 113,
            "max_position_embeddings": 64,
            "attention_bias": False,
        },  # fmt: skip
    ),
    "neox sequential residual": (
        "GPTNeoXConfig",
        {
            "hidden_size": 48,
            "intermediate_size": 80,
            "num_hidden_layers": 2,
            "num_attention_heads": 6,
            "vocab_size": 113,
            "max_position_embeddings": 64,
            "use_parallel_residual": False,
        },  # fmt: skip
    ),
}


@pytest.mark.parametrize("processed", [False, True], ids=["raw", "processed"])
@pytest.mark.parametrize("name", sorted(CASES))
@torch.no_grad()
def test_ours_is_right_where_upstream_is_wrong(name, processed, tmp_path):
    config_class, settings = CASES[name]
    variant = Variant(config_class, settings)
    hf_model = make_model(variant)
    save(variant, tmp_path)
    load = HookedTransformer.from_pretrained if processed else HookedTransformer.from_pretrained_no_processing
    model = load(tmp_path, device="cpu")
    tokens = torch.randint(0, 113, (2, 48), generator=torch.Generator().manual_seed(1))
    theirs = hf_model(tokens).logits.log_softmax(-1)
    assert (model(tokens).log_softmax(-1) - theirs).abs().max() < 1e-4
