"""Reads how positions rotate, in the spelling of either generation of transformers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transformer_lens.utilities.rotary_frequencies import rotary_frequencies

if TYPE_CHECKING:
    from transformer_lens.loading.conversion.config_reader import ConfigView

_LARGEST_LENGTH = 1 << 30
# Queries and keys are both multiplied by it; those of models lie between 1 and 2.
_LARGEST_ATTENTION_FACTOR = 1 << 15

# What each type may say; the first tuple must be there. transformers takes "finetuned", "short_mscale" and
# "long_mscale" without using them, and no original length for the dynamic type.
_NUMBERS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "default": ((), ()),
    "linear": (("factor",), ()),
    "dynamic": (("factor",), ("original_max_position_embeddings",)),
    "llama3": (("factor", "low_freq_factor", "high_freq_factor"), ("original_max_position_embeddings",)),
    "yarn": (
        ("factor",),
        ("original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim",
         "truncate", "finetuned"),
    ),
    "longrope": (
        ("short_factor", "long_factor"),
        ("factor", "original_max_position_embeddings", "attention_factor", "short_mscale", "long_mscale"),
    ),
}  # fmt: skip


def read_rotary(
    config: ConfigView,
    d_head: int,
    n_ctx: int,
    theta_names: tuple[str, ...],
    fraction_names: tuple[str, ...],
    default_theta: float | int,
    default_fraction: float | int,
    default_original: int | None,
    yarn_is_longrope: bool,
) -> dict[str, Any]:
    """Returns the fields of ours that say how positions rotate; {} where that is not known, which is noted.

    Args:
        config: Where to read: ``rope_parameters`` (transformers 5), or ``rope_theta`` and ``rope_scaling`` (4).
        d_head: Dimensions of a head.
        n_ctx: Longest sequence, in tokens.
        theta_names: Fields that may say theta beside those two.
        fraction_names: Fields that may say which part of a head rotates.
        default_theta: Theta where nothing says it.
        default_fraction: That part where nothing says it.
        default_original: Length that a stretched model was trained at, in tokens, where nothing says it.
        yarn_is_longrope: Whether the family writes "yarn" and means "longrope".
    """
    given = _given(config)
    beside = config.take("original_max_position_embeddings")
    if any(isinstance(value, Mapping) for value in given.values()):
        config.problems.append("rope_parameters: one set a layer type, which this family does not have")
        return {}
    theta = _named(config, theta_names, given.pop("rope_theta", None), default_theta)
    fraction = _named(config, fraction_names, given.pop("partial_rotary_factor", None), default_fraction)
    kind = given.pop("rope_type", "default")
    if kind == "su" or (yarn_is_longrope and kind == "yarn"):
        kind = "longrope"
    if kind not in tuple(_NUMBERS):
        config.problems.append(f"rope_type = {kind!r}: not one of {sorted(_NUMBERS)}")
        return {}
    rotary_dim = int(d_head * fraction)
    if fraction > 1 or rotary_dim < 2 or rotary_dim % 2 or (kind == "dynamic" and rotary_dim == 2):
        config.problems.append(f"{fraction} of the {d_head} dimensions of a head: {rotary_dim} cannot rotate in pairs")
        return {}
    scaling = None
    if kind != "default":
        given = _checked(config, kind, given, rotary_dim)
        original = _original_length(config, kind, beside, given, default_original)
        scaling = {"rope_type": kind, **_normal_form(config, kind, given, n_ctx, original)}
    _check_frequencies(config, rotary_dim, float(theta), scaling, n_ctx)
    return {
        "positional_embedding_type": "rotary",
        "rotary_base": int(theta) if float(theta).is_integer() else float(theta),
        "rotary_dim": rotary_dim,
        "rope_scaling": scaling,
        **_upstream_fields(scaling),
    }


def read_rotary_by_layer_type(
    config: ConfigView, d_head: int, n_ctx: int, theta: float, local_theta: float, local_name: str | None
) -> dict[str, Any]:
    """Returns the fields of ours where layers with a window turn by another base, and are never scaled.

    transformers 5 writes a set of rotary parameters for each type of layer. Releases before write one set, of the
    layers without a window, and the other base in a field of its own or nowhere.

    Args:
        config: Where to read.
        d_head: Dimensions of a head.
        n_ctx: Longest sequence, in tokens.
        theta: Base of layers that see all, where nothing says it.
        local_theta: Base of layers with a window, where nothing says it.
        local_name: The field that says it in older files; None where they have no such field.
    """
    sets = config.mapping("rope_parameters")
    whole, windowed = sets.get("full_attention"), sets.get("sliding_attention")
    if isinstance(whole, Mapping) and isinstance(windowed, Mapping) and len(sets) == 2:
        local = {name: value for name, value in windowed.items() if value is not None}
        if local.pop("rope_type", "default") != "default" or set(local) - {"rope_theta"}:
            config.problems.append(f"rope_parameters: layers with a window are scaled by {local}")
        local_base = config.check_number("rope_theta of sliding_attention", local.get("rope_theta", local_theta), 0)
        inner = type(config)({"rope_parameters": whole}, config.label, config.said_by)
        fields = inner.rotary(d_head, n_ctx, theta)
        config.problems += inner.problems
        # Older names of the same, which releases of transformers 5 do not write.
        for name in ("rope_theta", "rope_scaling", *([] if local_name is None else [local_name])):
            if config.take(name) is not None:
                config.problems.append(f"{name}: beside rope_parameters for each type of layer")
    else:
        fields = config.rotary(d_head, n_ctx, theta)
        local_base = local_theta if local_name is None else config.number(local_name, local_theta, above=0)
        if local_name is None and fields and fields["rotary_base"] != local_theta:
            config.problems.append(
                f"rope_theta = {fields['rotary_base']}: releases of transformers differ in whether layers with a "
                f"window have it too, or {local_theta:g}"
            )
    base = int(local_base) if float(local_base).is_integer() else float(local_base)
    return {**fields, "rotary_base_local": base} if fields else {}


def _given(config: ConfigView) -> dict[str, Any]:
    """Returns what the two dicts say together, "rope_type" under that name; nulls are left out."""
    spelled: list[dict[str, Any]] = []
    for name in ("rope_parameters", "rope_scaling"):
        value = config.mapping(name)
        said = {key: one for key, one in value.items() if one is not None}
        legacy = said.pop("type", None)
        spelled.append(said if legacy is None else {"rope_type": legacy, **said})
    newer, older = spelled
    for key in sorted(newer.keys() & older.keys()):
        if newer[key] != older[key]:
            config.problems.append(f"{key}: {newer[key]!r} in rope_parameters, {older[key]!r} in rope_scaling")
    return {**newer, **older}


def _named(config: ConfigView, names: tuple[str, ...], inside: Any, default: float | int) -> float | int:
    """Returns a positive number that goes by several names; the one inside the dict wins, as in transformers."""
    said = {name: config.take(name) for name in names if config.take(name) is not None}
    for name, value in said.items():
        config.check_number(name, value, above=0)
    if len(set(said.values())) > 1:
        config.problems.append(", ".join(f"{name} = {value!r}" for name, value in said.items()) + ": which one?")
    if inside is not None:
        return config.check_number(f"{names[-1]} of rope_parameters", inside, above=0)
    return next(iter(said.values()), default)


def _checked(config: ConfigView, kind: str, given: dict[str, Any], rotary_dim: int) -> dict[str, Any]:
    """Returns the numbers of a type, each of its own kind; what is unknown is noted, what is wrong raised."""
    needed, optional = _NUMBERS[kind]
    for name in needed:
        if name not in given:
            raise config.corrupt(f"rope_type {kind!r} needs {name!r}, which is not there")
    strange = sorted(set(given) - {*needed, *optional})
    if strange:
        config.problems.append(f"rope parameters {strange} of rope_type {kind!r}: their meaning is not known here")
    for name, value in given.items():
        if name in ("short_factor", "long_factor"):
            if not isinstance(value, (list, tuple)) or len(value) != rotary_dim // 2:
                raise config.corrupt(f"{name} is not a list of {rotary_dim // 2} numbers, one a frequency")
            for place, one in enumerate(value):
                config.check_number(f"{name}[{place}]", one, above=0)
        elif name == "truncate":
            config.check_flag(name, value)
        elif name == "original_max_position_embeddings":
            config.check_size(name, value, _LARGEST_LENGTH, smallest=2)
        elif name in (*needed, *optional) and name != "finetuned":
            config.check_number(name, value, above=None if name.startswith("mscale") else 0)
    if kind == "llama3" and not given["low_freq_factor"] < given["high_freq_factor"]:
        raise config.corrupt(
            f"low_freq_factor = {given['low_freq_factor']} is not below high_freq_factor = {given['high_freq_factor']}"
        )
    return given


def _original_length(
    config: ConfigView, kind: str, beside: Any, given: Mapping[str, Any], default: int | None
) -> int | None:
    """Returns the length a stretched model was trained at; beside the dict it goes before the one inside (Phi-3)."""
    name = "original_max_position_embeddings"
    inside = given.get(name)
    if beside is None:
        return inside if inside is not None else default
    if kind != "longrope" and inside not in (None, beside):
        config.problems.append(f"{name}: {beside!r}, and {inside!r} in the rope parameters: which one?")
    return config.check_size(name, beside, _LARGEST_LENGTH, smallest=2)


def _normal_form(
    config: ConfigView, kind: str, given: Mapping[str, Any], n_ctx: int, original: int | None
) -> dict[str, Any]:
    """Returns the numbers that a type needs, every one of them there and resolved."""
    if kind == "linear":
        return {"factor": given["factor"]}
    if kind == "dynamic":
        return {"factor": given["factor"], "max_position_embeddings": n_ctx}
    if kind == "llama3":
        if original is None:
            raise config.corrupt("rope_type 'llama3' needs 'original_max_position_embeddings', which is not there")
        numbers = {name: given[name] for name in _NUMBERS[kind][0]}
        return {**numbers, "original_max_position_embeddings": original}
    original = original or n_ctx
    if kind == "yarn":
        return {
            "factor": given["factor"],
            "original_max_position_embeddings": original,
            "beta_fast": given.get("beta_fast", 32.0),
            "beta_slow": given.get("beta_slow", 1.0),
            "truncate": given.get("truncate", True),
            "attention_factor": _yarn_attention_factor(given["factor"], given),
        }
    attention_factor = given.get("attention_factor")
    if attention_factor is None:
        stretch = given.get("factor", n_ctx / original)
        attention_factor = 1.0 if stretch <= 1 else math.sqrt(1 + math.log(stretch) / math.log(original))
    return {
        "short_factor": list(given["short_factor"]),
        "long_factor": list(given["long_factor"]),
        "original_max_position_embeddings": original,
        "attention_factor": attention_factor,
    }


def _check_frequencies(
    config: ConfigView, rotary_dim: int, theta: float, scaling: Mapping[str, Any] | None, n_ctx: int
) -> None:
    """Raises for numbers of which angles cannot be computed in float32: each is a number, and together they are none.

    transformers computes on, with infinities, and every logit is NaN.
    """
    trained = 0 if scaling is None else scaling.get("original_max_position_embeddings", 0)
    said = f"rotary base {theta}" + ("" if scaling is None else f" and rope_type {scaling['rope_type']!r}")
    for length in (1, n_ctx, trained + 1, _LARGEST_LENGTH):
        try:
            frequencies, factor = rotary_frequencies(rotary_dim, theta, scaling, length)
        except (ArithmeticError, ValueError) as error:
            raise config.corrupt(f"{said} give no frequencies of rotation ({error})") from None
        angles = frequencies * _LARGEST_LENGTH
        if not bool(((frequencies > 0) & angles.isfinite()).all()):
            raise config.corrupt(f"{said} give frequencies of rotation from {frequencies.min()} to {frequencies.max()}")
        if not 1 / _LARGEST_ATTENTION_FACTOR <= factor <= _LARGEST_ATTENTION_FACTOR:
            raise config.corrupt(f"{said} multiply cosines and sines by {factor}")


def _yarn_attention_factor(factor: float | int, given: Mapping[str, Any]) -> float:
    if given.get("attention_factor") is not None:
        return float(given["attention_factor"])

    def mscale(weight: float | int) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if given.get("mscale") and given.get("mscale_all_dim"):
        # Negative ones may make it nothing.
        below = mscale(given["mscale_all_dim"])
        return mscale(given["mscale"]) / below if below else math.inf
    return mscale(1.0)


def _upstream_fields(scaling: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the fields in which upstream keeps the same."""
    if scaling is None:
        return {}
    if scaling["rope_type"] == "llama3":
        return {
            "use_NTK_by_parts_rope": True,
            "NTK_by_parts_factor": scaling["factor"],
            "NTK_by_parts_low_freq_factor": scaling["low_freq_factor"],
            "NTK_by_parts_high_freq_factor": scaling["high_freq_factor"],
            "NTK_original_ctx_len": scaling["original_max_position_embeddings"],
        }
    if scaling["rope_type"] == "yarn":
        return {
            "use_yarn_rope": True,
            "yarn_factor": scaling["factor"],
            "yarn_attention_factor": scaling["attention_factor"],
            "yarn_beta_fast": scaling["beta_fast"],
            "yarn_beta_slow": scaling["beta_slow"],
            "yarn_original_max_position_embeddings": scaling["original_max_position_embeddings"],
            "yarn_truncate": scaling["truncate"],
        }
    return {}
