"""Scaling of rotary positions: which numbers each kind must have."""

from collections.abc import Mapping
from typing import Any

ROPE_NUMBERS: Mapping[str, "tuple[str, ...]"] = {
    "linear": ("factor",),
    "dynamic": ("factor", "max_position_embeddings"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": (
        "factor",
        "original_max_position_embeddings",
        "beta_fast",
        "beta_slow",
        "truncate",
        "attention_factor",
    ),
    "longrope": ("short_factor", "long_factor", "original_max_position_embeddings", "attention_factor"),
}
"""For each kind of rotary scaling, the entries that `HookedTransformerConfig.rope_scaling` must have."""


class InvalidConfigError(ValueError, AssertionError):
    """A config's fields contradict each other, or one that is needed is missing."""


def upstream_rope_scaling(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the rotary scaling that a config says by upstream's own fields, or None."""
    if fields["use_NTK_by_parts_rope"]:
        return {
            "rope_type": "llama3",
            "factor": fields["NTK_by_parts_factor"],
            "low_freq_factor": fields["NTK_by_parts_low_freq_factor"],
            "high_freq_factor": fields["NTK_by_parts_high_freq_factor"],
            "original_max_position_embeddings": fields["NTK_original_ctx_len"],
        }
    if fields["use_yarn_rope"]:
        return {
            "rope_type": "yarn",
            "factor": fields["yarn_factor"],
            "original_max_position_embeddings": fields["yarn_original_max_position_embeddings"],
            "beta_fast": fields["yarn_beta_fast"],
            "beta_slow": fields["yarn_beta_slow"],
            "truncate": fields["yarn_truncate"],
            "attention_factor": fields["yarn_attention_factor"],
        }
    if fields["rotary_scaling_factor"] != 1.0:
        return {"rope_type": "linear", "factor": fields["rotary_scaling_factor"]}
    return None


def check_rope_scaling(rope_scaling: Mapping[str, Any] | None) -> None:
    """Refuses a rotary scaling of an unknown kind, or with a number missing.

    Raises:
        InvalidConfigError: It is neither None nor complete.
    """
    if rope_scaling is None:
        return
    kind = rope_scaling.get("rope_type")
    if not isinstance(kind, str) or kind not in ROPE_NUMBERS:
        raise InvalidConfigError(f"rope_scaling has rope_type {kind!r}; known are {', '.join(ROPE_NUMBERS)}")
    missing = [number for number in ROPE_NUMBERS[kind] if rope_scaling.get(number) is None]
    if missing:
        raise InvalidConfigError(f"rope_scaling of rope_type {kind!r} lacks {', '.join(missing)}")
