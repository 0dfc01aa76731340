"""Phi-3 and Phi-4: queries, keys and values concatenated, gate and up concatenated, stretched or partial rotation."""

from typing import Any

from transformer_lens.loading.architectures import llama_like
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Take

_DEFAULTS = {
    "hidden_size": 3072,
    "num_attention_heads": 32,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "max_position_embeddings": 4096,
    "vocab_size": 32064,
}


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.ungroup_if_equal(llama_like.read_sizes(config, _DEFAULTS, eps=1e-5))
    size = config.window("sliding_window", None)
    return {
        **fields,
        **llama_like.window(size, ["sliding_attention"] * fields["n_layers"]),
        **config.rotary(fields["d_head"], fields["n_ctx"], default_original=4096, yarn_is_longrope=True),
    }


def _heads(slots: str) -> Take:
    """Takes some of the heads that lie one behind the other: queries, then keys, then values."""
    return Take(
        "{p}layers.{i}.self_attn.qkv_proj.weight",
        "(slot d_head) d_model",
        pick={"slot": slots},
        sizes={"slot": "head + 2 * kv_head"},
    )


def _half(place: int) -> Take:
    return Take("{p}layers.{i}.mlp.gate_up_proj.weight", "(gate_up d_mlp) d_model", pick={"gate_up": place})


PHI3 = Architecture(
    name="Phi3ForCausalLM",
    model_type="phi3",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block={
        **llama_like.NORMS,
        **llama_like.OUTPUT,
        "attn.W_Q": _heads("0:head"),
        "attn.W_K": _heads("head:head + kv_head"),
        "attn.W_V": _heads("head + kv_head:head + 2 * kv_head"),
        "mlp.W_gate": _half(0),
        "mlp.W_in": _half(1),
    },
    dropped=llama_like.DROPPED,
    read_config=_read,
    required={
        **llama_like.REQUIRED,
        **llama_like.UNBIASED,
        "lm_head_bias": False,
        "full_attn_mod": 1,
        "interpolate_factor": 1,
    },
)
