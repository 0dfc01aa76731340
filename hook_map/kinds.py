"""The kinds of block that the map draws: a small config of each, and what is to be said of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from transformer_lens import HookedTransformerConfig, anatomy

_SMALL = {"n_layers": 1, "d_model": 16, "n_ctx": 8, "d_head": 4, "n_heads": 4, "d_mlp": 32, "d_vocab": 9,
          "act_fn": "gelu", "device": "cpu"}  # fmt: skip
_LLAMA = {"normalization_type": "RMS", "positional_embedding_type": "rotary", "rotary_dim": 4, "gated_mlp": True,
          "act_fn": "silu", "n_key_value_heads": 2}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of block.

    Attributes:
        name: Of its drawing's file.
        title: Of its section.
        said: What distinguishes it, and which families have it.
        adds_up: Equations between hook points that hold in it.
        fields: Of a small config of it.
    """

    name: str
    title: str
    said: str
    adds_up: tuple[str, ...]
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> anatomy.Model:
        """The records of a small model of it."""
        return anatomy.model_of(HookedTransformerConfig(**{**_SMALL, **self.fields}))


_SERIAL = ("resid_mid = resid_pre + attn_out", "resid_post = resid_mid + mlp_out")

KINDS = (
    Kind("pre", "Norms before the branches", "GPT-2, GPT-Neo, OPT, BLOOM.", _SERIAL),
    Kind(
        "pre-rotary-gated", "Norms before the branches, rotated queries and keys, a gated MLP",
        "Llama, Mistral, Qwen 2, StarCoder 2, Granite (with multipliers). Several heads may share keys and values "
        "(`kv_head`).", _SERIAL, _LLAMA,
    ),
    Kind(
        "parallel", "Attention and MLP side by side",
        "GPT-J, GPT-NeoX (Pythia), Phi, Cohere. There is no `hook_resid_mid`: both branches read the stream before "
        "the block.", ("resid_post = resid_pre + attn_out + mlp_out",),
        {"parallel_attn_mlp": True, "positional_embedding_type": "rotary", "rotary_dim": 4},
    ),
    Kind(
        "sandwich", "Norms before and behind the branches",
        "Gemma 2 and 3. `hook_attn_out` and `hook_mlp_out` see what is added, behind the second norm.", _SERIAL,
        {**_LLAMA, "use_normalization_before_and_after": True},
    ),
    Kind(
        "output", "Norms behind the branches alone, norms of queries and keys",
        "OLMo 2 and 3. The branches read the stream as it is.", _SERIAL,
        {**_LLAMA, "norm_placement": "output", "use_qk_norm": True, "qk_norm_kind": "RMS over heads"},
    ),
    Kind(
        "post", "Norms behind the sums",
        "OPT-350M. A norm stands in the stream itself, so what branches write does not add up over layers.",
        ("resid_mid = ln1(resid_pre + attn_out)", "resid_post = ln2(resid_mid + mlp_out)"),
        {"norm_placement": "post", "has_final_norm": False},
    ),
    Kind(
        "experts", "A mixture of experts",
        "Mixtral, Qwen 2 and 3 MoE, OLMoE, gpt-oss. The hooks inside experts are made by `use_expert_hooks`; they see "
        "the tokens that were sent to the expert.", _SERIAL,
        {**_LLAMA, "num_experts": 2, "experts_per_token": 1, "d_expert": 8, "use_qk_norm": True, "qk_norm_kind": "RMS"},
    ),
)  # fmt: skip

INSIDE_ATTENTION = (
    "attn_scores = q · k / divisor, of q and k as rot_q and rot_k see them where there is a rotation",
    "pattern = softmax(attn_scores)",
    "z = pattern · v",
    "attn_out = sum over heads of result + b_O, result = z W_O (before a norm or a multiplier of the branch)",
)
INSIDE_MLP = ("mlp_out = post W_out + b_out (before a norm or a multiplier of the branch)",)
