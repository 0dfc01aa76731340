"""nanoGPT: GPT-2's names with plain linear layers ([out, in]), and all biases or none."""

from typing import Any

from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Take, When

_BIASED = When("bias", True)

# The axis of ours that heads are on: of queries, of keys, of values.
_HEADS = ("head", "kv_head", "kv_head")


def _read(config: ConfigView) -> dict[str, Any]:
    d_model = config.size("n_embd", 768)
    n_heads = config.size("n_head", 12)
    config.flag("bias", True)
    return {
        "d_model": d_model,
        "n_heads": n_heads,
        "d_head": config.parts("n_embd", d_model, "n_head", n_heads),
        "d_mlp": 4 * d_model,
        "n_layers": config.size("n_layer", 12, "layers"),
        "n_ctx": config.size("block_size", 1024, "tokens"),
        "d_vocab": config.size("vocab_size", 50304),
        "act_fn": "gelu",
        "eps": 1e-5,
        "normalization_type": "LN",
        "positional_embedding_type": "standard",
    }


def _fused(place: int) -> Take:
    return Take("{p}h.{i}.attn.c_attn.weight", f"(qkv {_HEADS[place]} d_head) d_model", pick={"qkv": place})


def _fused_bias(place: int) -> Take:
    return Take("{p}h.{i}.attn.c_attn.bias", f"(qkv {_HEADS[place]} d_head)", pick={"qkv": place}, when=_BIASED)


NANOGPT = Architecture(
    name="nanoGPT",
    model_type="nanogpt",
    prefix="transformer.",
    anchor="wte.weight",
    layer="{p}h.{i}.",
    once={
        "embed.W_E": Take("{p}wte.weight", "d_vocab d_model"),
        "pos_embed.W_pos": Take("{p}wpe.weight", "n_ctx d_model"),
        "ln_final.w": Take("{p}ln_f.weight", "d_model"),
        "ln_final.b": Take("{p}ln_f.bias", "d_model", when=_BIASED),
        "unembed.W_U": Take("lm_head.weight", "d_vocab_out d_model", tied_to="{p}wte.weight"),
    },
    block={
        "ln1.w": Take("{p}h.{i}.ln_1.weight", "d_model"),
        "ln1.b": Take("{p}h.{i}.ln_1.bias", "d_model", when=_BIASED),
        "attn.W_Q": _fused(0),
        "attn.W_K": _fused(1),
        "attn.W_V": _fused(2),
        "attn.b_Q": _fused_bias(0),
        "attn.b_K": _fused_bias(1),
        "attn.b_V": _fused_bias(2),
        "attn.W_O": Take("{p}h.{i}.attn.c_proj.weight", "d_model (head d_head)"),
        "attn.b_O": Take("{p}h.{i}.attn.c_proj.bias", "d_model", when=_BIASED),
        "ln2.w": Take("{p}h.{i}.ln_2.weight", "d_model"),
        "ln2.b": Take("{p}h.{i}.ln_2.bias", "d_model", when=_BIASED),
        "mlp.W_in": Take("{p}h.{i}.mlp.c_fc.weight", "d_mlp d_model"),
        "mlp.b_in": Take("{p}h.{i}.mlp.c_fc.bias", "d_mlp", when=_BIASED),
        "mlp.W_out": Take("{p}h.{i}.mlp.c_proj.weight", "d_model d_mlp"),
        "mlp.b_out": Take("{p}h.{i}.mlp.c_proj.bias", "d_model", when=_BIASED),
    },
    dropped={"{p}h.{i}.attn.bias": "a causal mask, computed here"},
    read_config=_read,
    ties_by_default=True,
    said_by="model_args",
)
