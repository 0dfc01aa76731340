"""gpt-oss: sinks, biases, windows on every other layer, experts fused in one tensor, in files as MXFP4."""

from typing import Any

import torch
from torch import Tensor

from transformer_lens.loading.architectures import llama_like
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Derived, OneOf, Recipe, Take

_DEFAULTS = {
    "hidden_size": 2880,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 2880,
    "num_hidden_layers": 36,
    "max_position_embeddings": 131072,
    "vocab_size": 201088,
}
_EXPERTS = "{p}layers.{i}.mlp.experts"


def _read(config: ConfigView) -> dict[str, Any]:
    fields = llama_like.read_sizes(config, _DEFAULTS, eps=1e-5)
    config.flag("attention_bias", True)
    if not config.mapping("rope_parameters") and not config.mapping("rope_scaling"):
        config.problems.append("rope_parameters is not there, and releases of transformers differ in what it is then")
    layer_types = config.layer_types(fields["n_layers"])
    if layer_types is None:
        layer_types = llama_like.every_nth_is_full(fields["n_layers"], 2)
    return {
        **fields,
        "norm_casts_late": True,
        "use_attention_sinks": True,
        "num_experts": config.size(config.spelling("num_local_experts", "num_experts"), 128),
        "experts_per_token": config.size(config.spelling("num_experts_per_tok", "experts_per_token"), 4),
        "norm_topk_prob": True,
        "router_bias": True,
        "expert_bias": True,
        "expert_clamp": config.number("swiglu_limit", 7.0, above=0),
        **llama_like.window(config.window("sliding_window", 128), layer_types),
        **config.rotary(fields["d_head"], fields["n_ctx"], 150_000.0),
    }


def _half(half: int) -> dict[str, int | str]:
    return {"expert": "{e}", "gate_up": half}


def _numbers(blocks: Tensor, scales: Tensor) -> Tensor:
    """Returns the numbers of MXFP4 blocks (Open Compute Project, 2023): two in a byte, the low half first.

    Args:
        blocks: [rows groups 16], each byte two indices into the sixteen values of a 4-bit float.
        scales: [rows groups], powers of two of which 127 is the zeroth.
    """
    table = torch.tensor(_VALUES, device=blocks.device)
    pairs = torch.stack([table[(blocks & 15).long()], table[(blocks >> 4).long()]], dim=-1)
    return torch.ldexp(pairs.flatten(-2), scales.int()[..., None] - 127).flatten(-2)


# Of sign, two bits of exponent, one of fraction.
_VALUES = [sign * value for sign in (1.0, -1.0) for value in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)]
_GROUPS: dict[str, int | str] = {"group": "d_model // 32", "sixteen": 16}
_GROUPS_OUT: dict[str, int | str] = {"group": "d_expert // 32", "sixteen": 16}
_OF_EXPERT: dict[str, int | str] = {"expert": "{e}"}


def _packed(key: str, rows: str, pick: dict[str, int | str], sizes: dict[str, int | str]) -> Derived:
    """Returns the recipe of a matrix that lies in blocks of 32 numbers with a scale each."""
    layout = f"expert {rows} group"
    blocks = Take(f"{key}_blocks", f"{layout} sixteen", pick=pick, sizes=sizes)
    scales = Take(f"{key}_scales", layout, pick=pick, sizes=sizes)
    return Derived((blocks, scales), _numbers, "unpacked from MXFP4", torch.bfloat16)


def _expert(ours: str, half: int) -> dict[str, Recipe]:
    key = f"{_EXPERTS}.gate_up_proj"
    return {
        f"mlp.experts.{{e}}.{ours}.weight": OneOf(
            (
                Take(key, "expert d_model (d_expert gate_up)", pick=_half(half)),
                _packed(key, "(d_expert gate_up)", _half(half), _GROUPS),
            )
        ),
        f"mlp.experts.{{e}}.{ours}.bias": Take(f"{key}_bias", "expert (d_expert gate_up)", pick=_half(half)),
    }


GPT_OSS = Architecture(
    name="GptOssForCausalLM",
    model_type="gpt_oss",
    prefix="model.",
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once=llama_like.ONCE,
    block={
        **{name: recipe for name, recipe in llama_like.BLOCK.items() if not name.startswith("mlp.")},
        **llama_like.attention_biases(),
        "attn.sinks": Take("{p}layers.{i}.self_attn.sinks", "head"),
        "mlp.W_gate.weight": Take("{p}layers.{i}.mlp.router.weight", "expert d_model"),
        "mlp.W_gate.bias": Take("{p}layers.{i}.mlp.router.bias", "expert"),
        **_expert("W_gate", 0),
        **_expert("W_in", 1),
        "mlp.experts.{e}.W_out.weight": OneOf(
            (
                Take(f"{_EXPERTS}.down_proj", "expert d_expert d_model", pick=_OF_EXPERT),
                _packed(f"{_EXPERTS}.down_proj", "d_model", _OF_EXPERT, _GROUPS_OUT),
            )
        ),
        "mlp.experts.{e}.W_out.bias": Take(f"{_EXPERTS}.down_proj_bias", "expert d_model", pick=_OF_EXPERT),
    },
    dropped=llama_like.DROPPED,
    read_config=_read,
    unpacks=frozenset(["mxfp4"]),
    ignored={
        "router_aux_loss_coef": "of the loss in training",
        "output_router_logits": "what transformers returns",
        "initial_context_length": "the length it was trained at, which the rotary parameters repeat",
    },
    required={**llama_like.REQUIRED, "attention_bias": True, "mlp_bias": False, "swiglu_alpha": 1.702},
)
