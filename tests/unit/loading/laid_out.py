"""Tensors whose axes lie in memory in any order, as the promises that a checkpoint would give."""

import torch

from transformer_lens.anatomy import axis_sizes, schema
from transformer_lens.config import HookedTransformerConfig
from transformer_lens.loading.weights import Held, LazyTensor, Origin, Weights


def laid_out(tensor, order):
    """The same numbers, with the axes in memory in this order, outermost first."""
    stored = tensor.permute(order).contiguous()
    return stored.permute([list(order).index(axis) for axis in range(tensor.ndim)])


def order_in_memory(tensor):
    """The axes by stride, those of one element (whose stride means nothing) left out."""
    axes = [axis for axis in range(tensor.ndim) if tensor.shape[axis] > 1]
    return sorted(axes, key=lambda axis: -tensor.stride(axis))


def size_of(tensor):
    """Bytes of a tensor; it says so itself from torch 2.1 on."""
    return tensor.numel() * tensor.element_size()


def promise(tensor, layout="", held=Held.BORROWED, key="tensor", **fields):
    return LazyTensor(
        shape=tuple(tensor.shape),
        dtype=tensor.dtype,
        held=held,
        origin=Origin(key, "a test"),
        make=fields.pop("make", lambda: tensor),
        layout=layout,
        **fields,
    )


def unreadable(shape, dtype=torch.float32, layout="", **fields):
    """A promise that fails the test when it is kept."""

    def make():
        raise AssertionError("was read")

    return LazyTensor(tuple(shape), dtype, Held.MAPPED, Origin("tensor", "a test"), make, layout=layout, **fields)


def storages(tensors):
    return {tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel()}


BASE = {"n_layers": 2, "d_model": 14, "n_ctx": 23, "d_head": 8, "n_heads": 6, "d_mlp": 40, "d_vocab": 29,
        "act_fn": "gelu", "device": "cpu"}  # fmt: skip
SQUARE = {"d_model": 12, "d_mlp": 12, "d_vocab": 12, "n_ctx": 12, "d_head": 6, "n_heads": 6}
LLAMA = {"normalization_type": "RMS", "positional_embedding_type": "rotary", "rotary_dim": 8, "gated_mlp": True,
         "act_fn": "silu"}  # fmt: skip
CONFIGS = {
    "gpt2": {},
    "square": SQUARE,
    "wide_heads": {"d_head": 19},
    "llama": {**LLAMA, "n_key_value_heads": 3},
    "llama_square": {**LLAMA, **SQUARE, "rotary_dim": 6, "n_key_value_heads": 2},
    "gated_layer_norm": {"gated_mlp": True, "gated_mlp_bias": True},
    "solu": {"act_fn": "solu_ln"},
    "sandwich": {**LLAMA, "n_key_value_heads": 3, "use_normalization_before_and_after": True},
    "sandwich_layer_norm": {"use_normalization_before_and_after": True},
    "final_rms": {"final_rms": True},
    "attn_only": {"attn_only": True, "act_fn": None, "d_mlp": None},
}


def config(kind="gpt2", **changes):
    return HookedTransformerConfig(**{**BASE, **CONFIGS[kind], **changes})


def random_state(cfg, dtype=torch.float64, seed=0, std=0.4):
    """Every parameter of a model, none at a value that hides a mistake, the axes of each in some order in memory."""
    generator = torch.Generator().manual_seed(seed)
    sizes = axis_sizes(cfg)
    out = {}
    for name, axes in schema(cfg).items():
        drawn = torch.randn([sizes[axis] for axis in axes.split()], generator=generator) * std
        order = torch.randperm(drawn.ndim, generator=generator).tolist()
        out[name] = laid_out((drawn + 1 if name.endswith(".w") else drawn).to(dtype), order)
    return out


def weights_of(state, cfg):
    return Weights({name: promise(state[name], axes, key=name) for name, axes in schema(cfg).items()})
