"""Makes the goldens: what TransformerLens 2.16.1 has for weights and activations of the tiny models.

It runs in an environment of its own, because the oracle and this project share a package name:

    python3 -m venv .cache/envs/oracle
    .cache/envs/oracle/bin/pip install transformer-lens==2.16.1 torch==2.13.0 transformers==4.57.3 \
        "numpy<2" pyarrow==21.0.0
    .cache/envs/oracle/bin/python -P tests/goldens/make.py

For each variant below, one ``<variant>.npz`` beside this file holds the processed weights (``from_pretrained``'s
default flags) under ``weight/…``, every cached activation of one fixed row of tokens under ``cache/…``, the tokens, the
logits, and a fingerprint of the transformers model, so that a golden of other weights is not taken for a wrong result.
Numbers are float32 with the last 7 of 23 mantissa bits cleared (relative error 2^-17), which lets them compress.

The variants are those of ``tests/tiny_models.py`` that 2.16.1 can load and gets right; the others are compared with
transformers alone.
"""

import importlib.util
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
N_TOKENS = 9
FLAGS = {"fold_ln": True, "center_writing_weights": True, "center_unembed": True, "fold_value_biases": True}
VARIANTS = (
    "gpt2",
    "gpt-neox",
    "gpt-neox-square",
    "llama",
    "llama-gqa",
    "llama-mqa",
    "llama-square",
    "mistral",
    "mistral-square",
    "qwen2",
    "phi3-gqa",
    "phi3-square",
)


def tiny_models():
    """Loads ``tests/tiny_models.py`` by its path: the repository must not be on the import path here."""
    spec = importlib.util.spec_from_file_location("tiny_models", HERE.parent / "tiny_models.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_models"] = module
    spec.loader.exec_module(module)
    return module


def oracle_of(hf_model):
    """Builds 2.16.1's processed model of a live transformers model, past its list of official names."""
    from transformer_lens import HookedTransformer
    from transformer_lens import loading_from_pretrained as loading
    from transformer_lens.pretrained import weight_conversions

    converters = {
        "gpt2": weight_conversions.convert_gpt2_weights,
        "gpt_neox": weight_conversions.convert_neox_weights,
        "llama": weight_conversions.convert_llama_weights,
        "mistral": weight_conversions.convert_mistral_weights,
        "qwen2": weight_conversions.convert_qwen2_weights,
        "phi3": weight_conversions.convert_phi3_weights,
    }
    config = {**hf_model.config.to_dict(), "architectures": [type(hf_model).__name__]}
    if "n_positions" in config:
        config["n_ctx"] = config["n_positions"]  # the older name, which 2.16.1 reads
    with tempfile.TemporaryDirectory(prefix="variant-") as folder:
        # The folder's name must hold no family's name: 2.16.1 looks for those.
        (Path(folder) / "config.json").write_text(json.dumps(config))
        cfg = loading.get_pretrained_model_config(folder, fold_ln=True, device="cpu", dtype=torch.float32)
    cfg.tokenizer_name = None
    cfg.model_name = "golden"
    model = HookedTransformer(cfg)
    model.load_and_process_state_dict(converters[config["model_type"]](hf_model, cfg), **FLAGS)
    model.set_use_attn_result(True)
    model.set_use_hook_mlp_in(True)
    return model.eval()


def shortened(tensor):
    """Rounds to 16 bits of mantissa."""
    array = tensor.detach().to(torch.float32).contiguous().numpy().copy()
    bits = array.view(np.uint32)
    finite = np.isfinite(array)
    bits[finite] = (bits[finite] + np.uint32(1 << 6)) & np.uint32(0xFFFFFF80)
    return array


def fingerprint(tiny, hf_model):
    """Sums every parameter of a transformers model in double precision."""
    return np.array([p.double().abs().sum().item() for _, p in tiny.parameters_in_order(hf_model)])


@torch.no_grad()
def make(name, tiny):
    """Writes one golden; returns its size and 2.16.1's own error against transformers."""
    hf_model = tiny.make_model(tiny.VARIANTS[name])
    model = oracle_of(hf_model)
    generator = torch.Generator().manual_seed(11)
    tokens = torch.randint(0, model.cfg.d_vocab, (1, N_TOKENS), generator=generator)
    logits, cache = model.run_with_cache(tokens)
    error = (logits.log_softmax(-1) - hf_model(tokens).logits.log_softmax(-1)).abs().max().item()
    assert error < 1e-4, f"{name}: 2.16.1 is off by {error:.2g}; it is no oracle for this variant"
    kept = {f"cache/{key}": shortened(value) for key, value in cache.items()}
    kept |= {f"weight/{key}": shortened(value) for key, value in model.named_parameters()}
    kept |= {"tokens": tokens.numpy(), "logits": shortened(logits), "fingerprint": fingerprint(tiny, hf_model)}
    path = HERE / f"{name}.npz"
    np.savez_compressed(path, **kept)
    return path.stat().st_size, error


def main():
    """Writes every golden."""
    from importlib.metadata import version

    assert version("transformer-lens") == "2.16.1", "this runs in the oracle's environment: see the top of the file"
    tiny = tiny_models()
    total = 0
    for name in VARIANTS:
        size, error = make(name, tiny)
        total += size
        print(f"{name:20} {size / 1024:7.0f} KiB   error against transformers {error:.1e}")
    print(f"{'together':20} {total / 1024:7.0f} KiB")


if __name__ == "__main__":
    main()
