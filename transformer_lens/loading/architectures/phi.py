"""Phi 1, 1.5 and 2: one norm for both branches, side by side; biases everywhere, on the logits too."""

from typing import Any

from transformer_lens.loading.architectures import llama_like
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Take

_DEFAULTS = {
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "max_position_embeddings": 2048,
    "vocab_size": 51200,
}


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.ungroup_if_equal(llama_like.read_shape(config, _DEFAULTS))
    normed = config.flag("qk_layernorm", False)
    return {
        **fields,
        "act_fn": config.activation("hidden_act", "gelu_new"),
        "eps": config.number("layer_norm_eps", 1e-5, above=0),
        "normalization_type": "LN",
        "gated_mlp": False,
        "parallel_attn_mlp": True,
        **({"use_qk_norm": True, "qk_norm_kind": "LN"} if normed else {}),
        **config.rotary(fields["d_head"], fields["n_ctx"], default_fraction=0.5),
    }


PHI = Architecture(
    name="PhiForCausalLM",
    model_type="phi",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once={
        **llama_like.ONCE,
        "ln_final.w": Take("{p}final_layernorm.weight", "d_model"),
        "ln_final.b": Take("{p}final_layernorm.bias", "d_model"),
        "unembed.b_U": Take("lm_head.bias", "d_vocab_out"),
    },
    block={
        "ln1.w": Take("{p}layers.{i}.input_layernorm.weight", "d_model"),
        "ln1.b": Take("{p}layers.{i}.input_layernorm.bias", "d_model"),
        # Upstream has a norm for each branch: both read the file's one.
        "ln2.w": Take("{p}layers.{i}.input_layernorm.weight", "d_model"),
        "ln2.b": Take("{p}layers.{i}.input_layernorm.bias", "d_model"),
        "attn.W_Q": llama_like.BLOCK["attn.W_Q"],
        "attn.W_K": llama_like.BLOCK["attn.W_K"],
        "attn.W_V": llama_like.BLOCK["attn.W_V"],
        **llama_like.attention_biases(output=False),
        "attn.q_norm.w": Take("{p}layers.{i}.self_attn.q_layernorm.weight", "d_head"),
        "attn.q_norm.b": Take("{p}layers.{i}.self_attn.q_layernorm.bias", "d_head"),
        "attn.k_norm.w": Take("{p}layers.{i}.self_attn.k_layernorm.weight", "d_head"),
        "attn.k_norm.b": Take("{p}layers.{i}.self_attn.k_layernorm.bias", "d_head"),
        "attn.W_O": Take("{p}layers.{i}.self_attn.dense.weight", "d_model (head d_head)"),
        "attn.b_O": Take("{p}layers.{i}.self_attn.dense.bias", "d_model"),
        "mlp.W_in": Take("{p}layers.{i}.mlp.fc1.weight", "d_mlp d_model"),
        "mlp.b_in": Take("{p}layers.{i}.mlp.fc1.bias", "d_mlp"),
        "mlp.W_out": Take("{p}layers.{i}.mlp.fc2.weight", "d_model d_mlp"),
        "mlp.b_out": Take("{p}layers.{i}.mlp.fc2.bias", "d_model"),
    },
    dropped=llama_like.DROPPED,
    read_config=_read,
)
