"""GGUF files as checkpoints: the only importer of the gguf package.

Names and config are brought to those of the Hugging Face checkpoint that the file was converted from; tensors are
dequantized one by one, when they are asked for, to float32.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transformer_lens.loading.checkpoint.checkpoint import Checkpoint
from transformer_lens.loading.checkpoint.gguf_header import check_header
from transformer_lens.loading.errors import CorruptCheckpointError, LoadingError, UnsupportedArchitectureError
from transformer_lens.loading.sources.source import GGUFSource
from transformer_lens.loading.weights import Held, LazyTensor, Origin, Weights

_LLAMA_NAMES = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "attn_qkv": "self_attn.qkv_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
_GPT2_NAMES = {
    "token_embd": "transformer.wte", "position_embd": "transformer.wpe", "output_norm": "transformer.ln_f",
    "output": "lm_head", "attn_norm": "ln_1", "ffn_norm": "ln_2", "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj", "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj",
}  # fmt: skip
_FAMILIES = {
    "llama": ("LlamaForCausalLM", "llama", _LLAMA_NAMES, "model.layers"),
    "qwen2": ("Qwen2ForCausalLM", "qwen2", _LLAMA_NAMES, "model.layers"),
    "phi3": ("Phi3ForCausalLM", "phi3", {**_LLAMA_NAMES, "ffn_up": "mlp.gate_up_proj"}, "model.layers"),
    "gpt2": ("GPT2LMHeadModel", "gpt2", _GPT2_NAMES, "transformer.h"),
}
_BLOCK = re.compile(r"blk\.(\d+)\.(.+)\.(weight|bias)$")
_FREQUENCIES = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


def open_gguf(source: GGUFSource, skip: Callable[[str], bool] = lambda key: False) -> Checkpoint:
    """Returns the checkpoint in a GGUF file.

    Raises:
        CorruptCheckpointError: The file is broken.
        UnsupportedArchitectureError: Its architecture is not one whose names are known here.
        LoadingError: The gguf package is not installed.
    """
    path = source.path
    check_header(path)
    try:
        import gguf
    except ImportError:
        raise LoadingError(
            f"{path.name} is a GGUF file: reading it takes the gguf package (pip install 'transformer-lens[gguf]')."
        ) from None
    try:
        reader = gguf.GGUFReader(str(path))
    except Exception as error:
        raise CorruptCheckpointError(f"{path} cannot be read as GGUF ({type(error).__name__}: {error}).") from None
    fields: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
    kind = str(fields.get("general.architecture"))
    if kind not in _FAMILIES:
        raise UnsupportedArchitectureError(
            f"{path} holds the architecture {kind!r}; of GGUF files these can be read: {', '.join(sorted(_FAMILIES))}."
        )
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    config = _config(kind, fields, tensors)
    weights: dict[str, LazyTensor] = {}
    for name, tensor in tensors.items():
        if name in _FREQUENCIES:
            continue
        key = _key(kind, name, path)
        if not skip(key):
            weights[key] = _promise(path, key, tensor, _arrange(kind, name, config))
    return Checkpoint(source.label, "gguf", None, config, Weights(weights))


def _key(kind: str, name: str, path: Path) -> str:
    """Returns the name that the tensor had before it was converted."""
    _, _, names, layers = _FAMILIES[kind]
    block = _BLOCK.match(name)
    stem, _, leaf = name.rpartition(".")
    known = names.get(block.group(2) if block else stem)
    if known is None:
        raise CorruptCheckpointError(f"{path}: the tensor {name!r} has no place in the architecture {kind!r}.")
    return f"{layers}.{block.group(1)}.{known}.{block.group(3)}" if block else f"{known}.{leaf}"


def _arrange(kind: str, name: str, config: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """Returns what undoes the converter's rearrangement of a tensor."""
    if kind == "gpt2" and re.search(r"\.(attn_qkv|attn_output|ffn_up|ffn_down)\.weight$", name):
        return lambda tensor: tensor.t()
    if kind == "llama" and ".attn_q." in name:
        return partial(_unpermuted, heads=config["num_attention_heads"])
    if kind == "llama" and ".attn_k." in name:
        return partial(_unpermuted, heads=config["num_key_value_heads"])
    return lambda tensor: tensor


def _unpermuted(tensor: Tensor, heads: int) -> Tensor:
    """Puts the rotated pairs of each head from neighbours (2j, 2j + 1) back to halves (j, j + d / 2)."""
    pairs = tensor.shape[0] // heads // 2
    return tensor.reshape(heads, pairs, 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def _promise(path: Path, key: str, tensor: Any, arrange: Callable[[Tensor], Tensor]) -> LazyTensor:
    shape = tuple(int(size) for size in reversed(tensor.shape))

    def make() -> Tensor:
        from gguf.quants import dequantize

        numbers = dequantize(tensor.data, tensor.tensor_type)
        return arrange(torch.from_numpy(numbers.astype("float32").reshape(shape)))

    shown = tuple(arrange(torch.empty(shape, device="meta")).shape)
    return LazyTensor(shown, torch.float32, Held.FRESH, Origin(key, path.name, ("dequantized",)), make)


def _config(kind: str, fields: Mapping[str, Any], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config.json that the metadata mean."""
    name, model_type, _, _ = _FAMILIES[kind]

    def field(key: str, default: Any = None) -> Any:
        return fields.get(f"{kind}.{key}", default)

    vocabulary = int(tensors["token_embd.weight"].shape[1]) if "token_embd.weight" in tensors else None
    common = {
        "architectures": [name],
        "model_type": model_type,
        "vocab_size": vocabulary,
        "tie_word_embeddings": "output.weight" not in tensors,
        "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": fields.get("tokenizer.ggml.eos_token_id"),
    }
    if kind == "gpt2":
        return {
            **common,
            "n_embd": field("embedding_length"),
            "n_head": field("attention.head_count"),
            "n_layer": field("block_count"),
            "n_positions": field("context_length"),
            "n_inner": field("feed_forward_length"),
            "layer_norm_epsilon": field("attention.layer_norm_epsilon", 1e-5),
        }
    heads, width = field("attention.head_count"), field("embedding_length")
    head_dim = field("attention.key_length") or (width // heads if heads and width else None)
    n_ctx = field("context_length")
    window = field("attention.sliding_window")
    config = {
        **common,
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": field("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "num_hidden_layers": field("block_count"),
        "intermediate_size": field("feed_forward_length"),
        "max_position_embeddings": n_ctx,
        "rms_norm_eps": field("attention.layer_norm_rms_epsilon", 1e-6),
        "rope_theta": field("rope.freq_base", 10000.0),
        "rope_scaling": _rope_scaling(field, tensors, n_ctx),
    }
    if kind == "phi3":
        config["sliding_window"] = window
        rotated = field("rope.dimension_count")
        if rotated and head_dim:
            config["partial_rotary_factor"] = rotated / head_dim
    return config


def _rope_scaling(field: Callable[..., Any], tensors: Mapping[str, Any], n_ctx: Any) -> dict[str, Any] | None:
    """Returns how frequencies are stretched; lists of divisors are what longrope has."""
    original = field("rope.scaling.original_context_length") or n_ctx
    if "rope_freqs.weight" in tensors:
        # Llama 3's frequencies, with the stretching already worked out: the same divisors at every length.
        divisors = tensors["rope_freqs.weight"].data.tolist()
        return {
            "rope_type": "longrope", "short_factor": divisors, "long_factor": divisors, "attention_factor": 1.0,
            "original_max_position_embeddings": n_ctx,
        }  # fmt: skip
    if "rope_factors_long.weight" in tensors:
        return {
            "rope_type": "longrope",
            "short_factor": tensors["rope_factors_short.weight"].data.tolist(),
            "long_factor": tensors["rope_factors_long.weight"].data.tolist(),
            "attention_factor": field("rope.scaling.attn_factor"),
            "original_max_position_embeddings": original,
        }
    kind = field("rope.scaling.type")
    if kind in (None, "none"):
        return None
    return {
        "rope_type": kind, "factor": field("rope.scaling.factor"), "original_max_position_embeddings": original,
    } if kind == "yarn" else {"rope_type": kind, "factor": field("rope.scaling.factor")}  # fmt: skip
