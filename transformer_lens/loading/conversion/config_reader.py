"""Reads ``config.json`` as data: every field is read, ignored by name, or an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transformer_lens.loading.conversion.rotary import read_rotary
from transformer_lens.loading.errors import CorruptCheckpointError, UnhandledConfigError
from transformer_lens.utilities.activation_functions import SUPPORTED_ACTIVATIONS

if TYPE_CHECKING:
    from transformer_lens.loading.conversion.architecture import Architecture

# Fields that change no number of a forward pass in evaluation mode.
IGNORED: frozenset[str] = frozenset(
    """
    _name_or_path _attn_implementation _attn_implementation_internal _attn_implementation_autoset attn_implementation
    _experts_implementation _experts_implementation_internal experts_implementation _flash_attn_2_enabled _commit_hash
    _num_labels architectures transformers_version model_type auto_map dtype torch_dtype use_cache name_or_path
    transformers.js_config unsloth_version unsloth_fixed neftune_noise_alpha
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

Number = float | int
_LARGEST_NUMBER = 1e30
_LARGEST = {"layers": 100_000, "tokens": 1 << 30, "width": 10_000_000}


class ConfigView:
    """A config that remembers which fields were read, and gathers what is wrong."""

    def __init__(self, config: Mapping[str, Any], label: str, said_by: str = "config.json") -> None:
        self.config = config
        self.label = label
        self.said_by = said_by
        self.read: set[str] = set()
        self.problems: list[str] = []

    def take(self, name: str, default: Any = None) -> Any:
        """Returns a field, or the default where it is absent or null."""
        self.read.add(name)
        value = self.config.get(name)
        return default if value is None else value

    def spelling(self, *names: str) -> str:
        """Returns the one of several names of a field that the config has; the first where it has none.

        Those that it has must agree.
        """
        found = {name: self.config[name] for name in names if self.config.get(name) is not None}
        self.read.update(names)
        if any(value != next(iter(found.values())) for value in found.values()):
            self.problems.append(", ".join(f"{name} = {_short(value)}" for name, value in found.items()) + ": which?")
        return next(iter(found), names[0])

    def has(self, name: str) -> bool:
        """Whether a field is there at all, null included."""
        return name in self.config

    def size(self, name: str, default: int | None = None, kind: str = "width") -> int:
        """Returns a field that counts something: a whole number, at least 1 and not absurd."""
        value = self.take(name, default)
        if value is None:
            raise self.corrupt(f"{name!r} is not there")
        return self.check_size(name, value, _LARGEST[kind])

    def count(self, name: str, default: int | None = None, largest: int = 1000) -> int:
        """Returns a field that counts something of which there may be none: a whole number, at least 0."""
        value = self.take(name, default)
        if value is None:
            raise self.corrupt(f"{name!r} is not there")
        return self.check_size(name, value, largest, smallest=0)

    def size_or_none(self, name: str, if_absent: int | None, kind: str = "width") -> int | None:
        """Returns a field that counts something; None where it is null, which may mean another than absent."""
        self.read.add(name)
        if not self.has(name):
            return if_absent
        return None if self.config[name] is None else self.size(name, kind=kind)

    def window(self, name: str, if_absent: int | None) -> int | None:
        """Returns the width of a window, in tokens; None where it is null or 0, which both mean that there is none."""
        self.read.add(name)
        if self.has(name) and self.config[name] == 0 and not isinstance(self.config[name], bool):
            return None
        return self.size_or_none(name, if_absent, "tokens")

    def number(self, name: str, default: Number, above: Number | None = None) -> Number:
        """Returns a field that is a finite number, above a bound where there is one."""
        return self.check_number(name, self.take(name, default), above)

    def number_or_none(self, name: str, if_absent: Number | None, above: Number | None = None) -> Number | None:
        """Returns a field that is a finite number; None where it is null, which may mean another than absent."""
        self.read.add(name)
        if not self.has(name):
            return if_absent
        return None if self.config[name] is None else self.number(name, 0, above)

    def flag(self, name: str, default: bool) -> bool:
        """Returns a field that is true or false."""
        return self.check_flag(name, self.take(name, default))

    def mapping(self, name: str) -> Mapping[str, Any]:
        """Returns a field that is a dict, empty where it is absent or null."""
        value = self.take(name, {})
        if not isinstance(value, Mapping):
            raise self.corrupt(f"{name} = {_short(value)} is not a dict")
        return value

    def layer_types(self, n_layers: int) -> list[str] | None:
        """Returns which layers have a window ("sliding_attention") and which see all; None where it is not said."""
        value = self.take("layer_types")
        if value is None:
            return None
        if not isinstance(value, (list, tuple)) or len(value) != n_layers:
            raise self.corrupt(f"layer_types = {_short(value)} is not a list of {n_layers}, one a layer")
        strange = [kind for kind in value if kind not in ("sliding_attention", "full_attention")]
        if strange:
            self.problems.append(f"layer_types: {strange[0]!r} is neither 'sliding_attention' nor 'full_attention'")
        return [str(kind) for kind in value]

    def numbers_by_layer(self, name: str, n_layers: int) -> list[int] | None:
        """Returns a field that is a list of whole numbers, one a layer; None where it is not there."""
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, (list, tuple)) or len(value) != n_layers:
            raise self.corrupt(f"{name} = {_short(value)} is not a list of {n_layers}, one a layer")
        return [self.check_size(f"{name}[{place}]", one, 1 << 30, smallest=0) for place, one in enumerate(value)]

    def activation(self, name: str, default: str) -> str:
        """Returns a field that names an activation that is there."""
        value = self.take(name, default)
        if value == "swish":
            value = "silu"
        if not isinstance(value, str) or value not in SUPPORTED_ACTIVATIONS or value.startswith("solu"):
            self.problems.append(f"{name} = {_short(value)}: not one of the activations here")
            return default
        return value

    def parts(self, whole: str, n_whole: int, part: str, n_parts: int) -> int:
        """Returns how many of one are in each of another, which must divide it."""
        if n_whole % n_parts:
            raise self.corrupt(f"{whole} = {n_whole} is not a multiple of {part} = {n_parts}")
        return n_whole // n_parts

    def rotary(
        self,
        d_head: int,
        n_ctx: int,
        default_theta: float = 10000.0,
        theta_names: tuple[str, ...] = ("rope_theta",),
        fraction_names: tuple[str, ...] = ("partial_rotary_factor",),
        default_fraction: float = 1.0,
        default_original: int | None = None,
        yarn_is_longrope: bool = False,
    ) -> dict[str, Any]:
        """Returns the fields of ours that say how positions rotate; `read_rotary` tells what the arguments are."""
        return read_rotary(
            self,
            d_head,
            n_ctx,
            theta_names,
            fraction_names,
            default_theta,
            default_fraction,
            default_original,
            yarn_is_longrope,
        )

    def corrupt(self, fact: str) -> CorruptCheckpointError:
        """Returns the error that says what makes no sense in the config."""
        return CorruptCheckpointError(
            f"{self.said_by} of {self.label}: {fact}.\n  Nothing was allocated. Is it damaged?"
        )

    def check_size(self, name: str, value: Any, largest: int, smallest: int = 1) -> int:
        """Returns a value that is a whole number within bounds."""
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.corrupt(f"{name} = {_short(value)} is not a whole number")
        if not smallest <= value <= largest:
            raise self.corrupt(f"{name} = {value} is not between {smallest} and {largest}")
        return value

    def check_number(self, name: str, value: Any, above: Number | None = None) -> Number:
        """Returns a value that is a finite number, above a bound where there is one."""
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not -_LARGEST_NUMBER < value < _LARGEST_NUMBER
        ):
            raise self.corrupt(f"{name} = {_short(value)} is not a number")
        if above is not None and not value > above:
            raise self.corrupt(f"{name} = {value} is not above {above}")
        return value

    def check_flag(self, name: str, value: Any) -> bool:
        """Returns a value that is true or false."""
        if not isinstance(value, bool):
            raise self.corrupt(f"{name} = {_short(value)} is not true or false")
        return value


def read_config(architecture: Architecture, config: Mapping[str, Any], label: str) -> dict[str, Any]:
    """Returns the fields of a ``HookedTransformerConfig`` that a parsed config.json means.

    Raises:
        UnhandledConfigError: A field changes the model in a way that is not known here; all such are named at once.
        CorruptCheckpointError: A field has a value that makes no sense.
    """
    view = ConfigView(architecture.text_fields(config), label, architecture.said_by)
    beside = {} if view.config is config else {k: v for k, v in config.items() if k != architecture.text_config}
    for name in MUST_BE_FALSE:
        if view.take(name):
            view.problems.append(f"{name} = {_short(view.config[name])}: must be false")
    for name, value in architecture.required.items():
        if view.take(name, value) != value:
            view.problems.append(f"{name} = {_short(view.config[name])}: only {value!r} is implemented")
    fields = architecture.read_config(view)
    view.flag("tie_word_embeddings", architecture.ties_by_default)
    known = view.read | IGNORED | set(architecture.ignored)
    view.problems.extend(
        f"{name} = {_short(value)}: no reader, and no reason to ignore it"
        for name, value in view.config.items()
        if name not in known and value is not None
    )
    view.problems.extend(
        f"{name} = {_short(value)}: beside {architecture.text_config}, with no reason to ignore it"
        for name, value in beside.items()
        if name not in IGNORED | set(architecture.beside_text) | {"tie_word_embeddings"} and value
    )
    if view.problems:
        raise UnhandledConfigError(
            f"{architecture.said_by} of {label} says what {architecture.name} does not know here:\n"
            + "\n".join(f"  {problem}" for problem in view.problems)
            + f"\n  the reader is {architecture.file}; "
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
