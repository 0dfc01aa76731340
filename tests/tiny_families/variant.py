"""What a variant and a family are for tests, and the sizes that their tiny models share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from packaging.version import Version

# Their caches mark addresses for the compiler of torch 2.1.
_NEED_TORCH_2_1 = ("Gemma2Config", "Cohere2Config")


@dataclass(frozen=True)
class Variant:
    """A transformers config by the name of its class and its fields."""

    config_class: str
    settings: dict[str, Any]
    # The first release of transformers whose own forward pass is right for it.
    right_since: str = "4.49"
    # The first release of transformers that reads every field of it.
    fields_since: str = "4.49"
    # The first release of torch that transformers' class runs on.
    torch_since: str = "2.0"
    # What the weights of norms lie around, so that a norm multiplies by about one.
    norm_weights: float = 1.0
    # Fields of ours that differ from those of the family.
    traits: dict[str, Any] = field(default_factory=dict)

    def has_config(self) -> bool:
        """Whether the installed transformers has the config."""
        import transformers

        return hasattr(transformers, self.config_class)

    def why_no_reference(self) -> str | None:
        """Says why the installed transformers cannot be compared with; None where it can."""
        import transformers

        if not self.has_config():
            return f"transformers has no {self.config_class} in this release"
        if Version(transformers.__version__) < Version(self.fields_since):
            return f"transformers reads not all of its fields before {self.fields_since}"
        if Version(transformers.__version__) < Version(self.right_since):
            return f"transformers computes this wrongly before {self.right_since}"
        torch_since = "2.1" if self.config_class in _NEED_TORCH_2_1 else self.torch_since
        if Version(torch.__version__) < Version(torch_since):
            return f"transformers' class for {self.config_class} needs torch {torch_since}"
        return None

    def config(self) -> Any:
        """Makes the config, in whichever spelling this transformers understands."""
        import transformers

        return getattr(transformers, self.config_class)(**_spelled(self.config_class, self.settings))


def _spelled(config_class: str, settings: dict[str, Any]) -> dict[str, Any]:
    import transformers

    out = dict(settings)
    if "text_config" in out:
        out["text_config"] = _spelled(config_class.replace("Config", "TextConfig"), out["text_config"])
    rope = out.get("rope_parameters")
    if rope is not None and int(transformers.__version__.split(".")[0]) < 5:
        rope = dict(out.pop("rope_parameters"))
        if "full_attention" in rope:
            # One set, of the layers without a window, and the other base in a field of its own, if at all.
            if config_class == "Gemma3TextConfig":
                out["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
            rope = dict(rope["full_attention"])
        neox = config_class == "GPTNeoXConfig"
        out["rotary_emb_base" if neox else "rope_theta"] = rope.pop("rope_theta", 10000.0)
        partial = rope.pop("partial_rotary_factor", None)
        if partial is not None:
            out["rotary_pct" if neox else "partial_rotary_factor"] = partial
        if out.get("original_max_position_embeddings") is not None:
            rope.pop("original_max_position_embeddings", None)
        if config_class == "Phi3Config" and rope["rope_type"] == "longrope":
            # Releases before 5 accept these three names for this family and no other.
            rope = {"type": "longrope", "short_factor": rope["short_factor"], "long_factor": rope["long_factor"]}
        out["rope_scaling"] = None if rope.get("rope_type") == "default" else rope
    return out


LLAMA = {
    "hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 3, "intermediate_size": 80, "vocab_size": 113,
    "max_position_embeddings": 64, "num_hidden_layers": 2,
}  # fmt: skip
SQUARE = {**LLAMA, "intermediate_size": 48, "vocab_size": 48}
MHA = {**LLAMA, "num_key_value_heads": 6}
PHI = {**LLAMA, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GPT2 = {"n_embd": 48, "n_head": 6, "n_layer": 2, "vocab_size": 113, "n_positions": 64}
NEOX = {
    "hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 80, "vocab_size": 113,
    "max_position_embeddings": 64, "num_hidden_layers": 2,
}  # fmt: skip


def rope(kind: str, theta: float = 10000.0, **numbers: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **numbers}}


LONG = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.5, 2.0, 2.5, 3.0]}
SHORTER = {"short_factor": [1.0, 1.1, 1.2], "long_factor": [1.5, 2.0, 2.5]}


@dataclass(frozen=True)
class Family:
    """What tests know of a family: facts of its config that no variant shows.

    In fields of a config, ``...`` stands for one that is not there at all.
    """

    config_class: str
    # The sizes that config.json says at least, pairwise distinct.
    least: dict[str, Any]
    # Fields of ours that follow for every variant, if the variant does not say otherwise.
    traits: dict[str, Any]
    # What else the least config has to say.
    beside: dict[str, Any] = field(default_factory=dict)
    # (fields of the config, what follows); "windows" are those of the layers.
    means: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = ()
    # (fields of the config, name of the error, what its message says).
    refuses: tuple[tuple[dict[str, Any], str, str], ...] = ()
    # Fields that published checkpoints carry.
    published: dict[str, dict[str, Any]] = field(default_factory=dict)
    # The function of tests/unit/loading/by_hand.py that converts a live model, where there is one.
    by_hand: str | None = None


SIZES = {
    "hidden_size": 48, "num_attention_heads": 6, "intermediate_size": 80, "vocab_size": 113,
    "max_position_embeddings": 64, "num_hidden_layers": 4, "num_key_value_heads": 3,
}  # fmt: skip
WITH_HEADS = {**SIZES, "head_dim": 10}
EXPERTS = {"num_local_experts": 5, "num_experts_per_tok": 2}
RMS = {
    "normalization_type": "RMS", "parallel_attn_mlp": False, "default_prepend_bos": True, "gated_mlp": True,
    "positional_embedding_type": "rotary",
}  # fmt: skip
LN = {**RMS, "normalization_type": "LN", "gated_mlp": False}
UNGROUPED = (
    ({"num_key_value_heads": 6}, {"n_key_value_heads": None}),
    ({"num_key_value_heads": None}, {"n_key_value_heads": None}),
    ({"num_key_value_heads": 1}, {"n_key_value_heads": 1}),
)
GROUPED = (
    ({"num_key_value_heads": 6}, {"n_key_value_heads": 6}),
    ({"num_key_value_heads": None}, {"n_key_value_heads": 6}),
)
QWEN_WINDOWS = (
    ({"sliding_window": 5, "max_window_layers": 1}, {"windows": [None] * 4}),
    ({"sliding_window": 5, "max_window_layers": 1, "use_sliding_window": True}, {"windows": [None, 5, 5, 5]}),
    ({"sliding_window": 5, "max_window_layers": 0, "use_sliding_window": True}, {"windows": [5] * 4}),
    ({"sliding_window": 0, "max_window_layers": 0, "use_sliding_window": True}, {"windows": [None] * 4}),
    ({"sliding_window": 5, "use_sliding_window": True}, {"windows": [None] * 4}),
    ({"max_window_layers": 3, "use_sliding_window": True}, {"windows": [None, None, None, 4096]}),
    ({"sliding_window": None, "max_window_layers": 1, "use_sliding_window": True}, {"windows": [None] * 4}),
    ({"sliding_window": 5, "max_window_layers": 4, "use_sliding_window": True,
      "layer_types": ["sliding_attention", "full_attention"] * 2}, {"windows": [5, None, 5, None]}),
    ({"layer_types": ["full_attention"] * 4}, {"windows": [None] * 4}),
)  # fmt: skip
EVERY_WINDOW = (
    ({"sliding_window": None}, {"windows": [None] * 4}),
    ({"sliding_window": 0}, {"windows": [None] * 4}),
    ({"sliding_window": 5}, {"windows": [5] * 4}),
)
SUMMARY = {
    "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
    "summary_type": "cls_index", "summary_use_proj": True,
}  # fmt: skip
DOUBLED = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}


def longrope(original: int, length: int) -> dict[str, Any]:
    """What follows of those factors: the factor on cos and sin is of the ratio of the lengths."""
    factor = math.sqrt(1 + math.log(length / original) / math.log(original))
    numbers = {"original_max_position_embeddings": original, "attention_factor": factor}
    return {"rope_scaling": {"rope_type": "longrope", **DOUBLED, **numbers}}
