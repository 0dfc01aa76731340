"""Reads ``config.json`` as data: every field is read, ignored by name, or an error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transformer_lens.loading.errors import CorruptCheckpointError, UnhandledConfigError
from transformer_lens.utilities.activation_functions import SUPPORTED_ACTIVATIONS

if TYPE_CHECKING:
    from transformer_lens.loading.conversion.architecture import Architecture

# Fields that change no number of a forward pass in evaluation mode.
IGNORED: frozenset[str] = frozenset(
    """
    _name_or_path _attn_implementation attn_implementation _commit_hash architectures transformers_version model_type
    auto_map dtype torch_dtype use_cache name_or_path
    bos_token_id eos_token_id pad_token_id sep_token_id unk_token_id decoder_start_token_id return_dict
    output_attentions output_hidden_states output_router_logits initializer_range init_std initializer_factor
    attn_pdrop resid_pdrop embd_pdrop attention_dropout hidden_dropout resid_dropout embed_dropout dropout layerdrop
    activation_dropout hidden_dropout_prob attention_probs_dropout_prob classifier_dropout residual_dropout
    embedding_dropout dropout_rate id2label label2id num_labels problem_type chunk_size_feed_forward
    task_specific_params pretraining_tp gradient_checkpointing finetuning_task prefix tokenizer_class torchscript
    pruned_heads bad_words_ids tie_encoder_decoder cross_attention_hidden_size tf_legacy_loss use_bfloat16
    max_length min_length do_sample early_stopping num_beams temperature top_k top_p typical_p repetition_penalty
    length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size num_return_sequences output_scores
    return_dict_in_generate forced_bos_token_id forced_eos_token_id remove_invalid_values suppress_tokens
    exponential_decay_length_penalty begin_suppress_tokens num_beam_groups diversity_penalty is_decoder
    """.split()
)
# Fields that must say no where they are present.
MUST_BE_FALSE: tuple[str, ...] = ("add_cross_attention", "is_encoder_decoder", "use_bidirectional_attention")

_ROPE_NUMBERS: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor", "original_max_position_embeddings"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": (
        "factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale",
        "mscale_all_dim", "truncate", "finetuned",
    ),
    "longrope": (
        "factor", "original_max_position_embeddings", "attention_factor", "short_factor", "long_factor",
        "short_mscale", "long_mscale",
    ),
}  # fmt: skip
_LARGEST = {"layers": 100_000, "tokens": 1 << 30, "width": 10_000_000}


class ConfigView:
    """A config that remembers which fields were read, and gathers what is wrong."""

    def __init__(self, config: Mapping[str, Any], label: str) -> None:
        self.config = config
        self.label = label
        self.read: set[str] = set()
        self.problems: list[str] = []

    def take(self, name: str, default: Any = None) -> Any:
        """Returns a field, or the default where it is absent or null."""
        self.read.add(name)
        value = self.config.get(name)
        return default if value is None else value

    def has(self, name: str) -> bool:
        """Whether a field is there at all, null included."""
        return name in self.config

    def size(self, name: str, default: int | None = None, kind: str = "width") -> int:
        """Returns a field that counts something: a whole number, at least 1 and not absurd."""
        value = self.take(name, default)
        if value is None:
            raise CorruptCheckpointError(f"config.json of {self.label} lacks {name!r}; is the file whole?")
        if not isinstance(value, int) or isinstance(value, bool):
            raise CorruptCheckpointError(f"config.json of {self.label}: {name} = {value!r} is not a whole number.")
        if not 1 <= value <= _LARGEST[kind]:
            raise CorruptCheckpointError(
                f"config.json of {self.label}: {name} = {value} is not between 1 and {_LARGEST[kind]}; "
                "nothing was allocated. Is the file damaged?"
            )
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """Returns a field that is a finite number."""
        value = self.take(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise CorruptCheckpointError(f"config.json of {self.label}: {name} = {value!r} is not a number.")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """Returns a field that is true or false."""
        value = self.take(name, default)
        if not isinstance(value, bool):
            raise CorruptCheckpointError(f"config.json of {self.label}: {name} = {value!r} is not true or false.")
        return value

    def activation(self, name: str, default: str) -> str:
        """Returns a field that names an activation that is there."""
        value = self.take(name, default)
        if value == "swish":
            value = "silu"
        if value not in SUPPORTED_ACTIVATIONS or value.startswith("solu"):
            self.problems.append(f"{name} = {value!r}: not one of the activations here")
            return default
        return str(value)

    def rotary(
        self,
        d_head: int,
        n_ctx: int,
        default_theta: float = 10000.0,
        theta_names: tuple[str, ...] = ("rope_theta",),
        fraction_names: tuple[str, ...] = ("partial_rotary_factor",),
        default_fraction: float = 1.0,
        yarn_is_longrope: bool = False,
    ) -> dict[str, Any]:
        """Returns the fields of ours that say how positions rotate.

        ``rope_parameters`` is transformers 5's spelling, ``rope_theta`` with ``rope_scaling`` that of 4.
        """
        given: dict[str, Any] = {}
        for name in ("rope_scaling", "rope_parameters"):
            value = self.take(name, {})
            if not isinstance(value, Mapping):
                raise CorruptCheckpointError(f"config.json of {self.label}: {name} = {value!r} is not a dict.")
            given |= value
        if any(isinstance(value, Mapping) for value in given.values()):
            self.problems.append("rope_parameters: one set a layer type, which this family does not have")
            return {}
        theta = next((self.take(name) for name in theta_names if self.take(name) is not None), default_theta)
        fraction = next((self.take(name) for name in fraction_names if self.take(name) is not None), default_fraction)
        theta = given.pop("rope_theta", None) or theta
        fraction = given.pop("partial_rotary_factor", None) or fraction
        kinds = [given.pop(name) for name in ("rope_type", "type") if given.get(name) is not None]
        for name in ("rope_type", "type"):
            given.pop(name, None)
        kind = kinds[0] if kinds else "default"
        if kind == "su" or (yarn_is_longrope and kind == "yarn"):
            kind = "longrope"
        if kind not in _ROPE_NUMBERS:
            self.problems.append(f"rope_type = {kind!r}: not one of {sorted(_ROPE_NUMBERS)}")
            return {}
        given = {name: value for name, value in given.items() if value is not None}
        strange = sorted(set(given) - set(_ROPE_NUMBERS[kind]))
        if strange and kind != "default":
            self.problems.append(f"rope parameters {strange} of rope_type {kind!r}: their meaning is not known here")
        original = self.take("original_max_position_embeddings")
        try:
            scaling = _rope_scaling(kind, given, n_ctx, original)
        except KeyError as error:
            raise CorruptCheckpointError(
                f"config.json of {self.label}: rope_type {kind!r} needs {error.args[0]!r}, which is not there."
            ) from None
        rotary_dim = int(d_head * fraction)
        if scaling is not None and kind == "longrope":
            for name in ("short_factor", "long_factor"):
                if len(scaling[name]) != rotary_dim // 2:
                    raise CorruptCheckpointError(
                        f"config.json of {self.label}: {name} has {len(scaling[name])} numbers for "
                        f"{rotary_dim // 2} frequencies."
                    )
        fields: dict[str, Any] = {
            "positional_embedding_type": "rotary",
            "rotary_base": int(theta) if float(theta).is_integer() else float(theta),
            "rotary_dim": rotary_dim,
            "rope_scaling": scaling,
        }
        return fields | _upstream_rope_fields(scaling)


def _rope_scaling(kind: str, given: dict[str, Any], n_ctx: int, original: int | None) -> dict[str, Any] | None:
    """Returns the normal form of a rope_scaling: every number that its type needs, resolved."""
    if kind == "default":
        return None
    if kind == "linear":
        return {"rope_type": kind, "factor": given["factor"]}
    if kind == "dynamic":
        return {"rope_type": kind, "factor": given["factor"], "max_position_embeddings": n_ctx}
    trained = given.get("original_max_position_embeddings") or original
    if kind == "llama3":
        if trained is None:
            raise KeyError("original_max_position_embeddings")
        names = ("factor", "low_freq_factor", "high_freq_factor")
        return {"rope_type": kind, **{name: given[name] for name in names}, "original_max_position_embeddings": trained}
    trained = trained or n_ctx
    factor = given.get("factor")
    if kind == "yarn":
        if factor is None:
            raise KeyError("factor")
        return {
            "rope_type": kind,
            "factor": factor,
            "original_max_position_embeddings": trained,
            "beta_fast": given.get("beta_fast") or 32.0,
            "beta_slow": given.get("beta_slow") or 1.0,
            "truncate": given.get("truncate", True),
            "attention_factor": _yarn_attention_factor(factor, given),
        }
    attention_factor = given.get("attention_factor")
    if attention_factor is None:
        stretch = factor or n_ctx / trained
        attention_factor = 1.0 if stretch <= 1 else math.sqrt(1 + math.log(stretch) / math.log(trained))
    return {
        "rope_type": kind,
        "short_factor": list(given["short_factor"]),
        "long_factor": list(given["long_factor"]),
        "original_max_position_embeddings": trained,
        "attention_factor": attention_factor,
    }


def _yarn_attention_factor(factor: float, given: Mapping[str, Any]) -> float:
    if given.get("attention_factor") is not None:
        return float(given["attention_factor"])

    def mscale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if given.get("mscale") and given.get("mscale_all_dim"):
        return mscale(given["mscale"]) / mscale(given["mscale_all_dim"])
    return mscale(1.0)


def _upstream_rope_fields(scaling: Mapping[str, Any] | None) -> dict[str, Any]:
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


def read_config(architecture: Architecture, config: Mapping[str, Any], label: str) -> dict[str, Any]:
    """Returns the fields of a ``HookedTransformerConfig`` that a parsed config.json means.

    Raises:
        UnhandledConfigError: A field changes the model in a way that is not known here; all such are named at once.
        CorruptCheckpointError: A field has a value that makes no sense.
    """
    view = ConfigView(config, label)
    for name in MUST_BE_FALSE:
        if view.take(name):
            view.problems.append(f"{name} = {config[name]!r}: must be false")
    fields = architecture.read_config(view)
    view.take("tie_word_embeddings")
    known = view.read | IGNORED | set(architecture.ignored)
    view.problems.extend(
        f"{name} = {_short(value)}: no reader, and no reason to ignore it"
        for name, value in config.items()
        if name not in known and not name.startswith("_") and value is not None
    )
    if view.problems:
        raise UnhandledConfigError(
            f"config.json of {label} says what {architecture.name} does not know here:\n"
            + "\n".join(f"  {problem}" for problem in view.problems)
            + f"\n  the reader is architectures/{architecture.model_type}.py; "
            "a field that changes no number belongs into its `ignored`, with the reason."
        )
    return {
        **fields,
        "original_architecture": architecture.name,
        "tie_word_embeddings": architecture.ties(config),
    }


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
