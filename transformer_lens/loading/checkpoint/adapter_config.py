"""``adapter_config.json`` as data: every field is read, ignored with a reason, or refused by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from transformer_lens.loading.checkpoint.name_pattern import Budget, NamePattern
from transformer_lens.loading.errors import CorruptCheckpointError, UnhandledConfigError

# Fields that change no merged number, each with the reason.
IGNORED: Mapping[str, str] = {
    "auto_mapping": "names classes of the training code",
    "eva_config": "how the factors began",
    "ephemeral_gpu_offload": "where peft computes",
    "fan_in_fan_out": "the base's own layout says it; peft corrects it by the layer, too",
    "inference_mode": "whether peft trains",
    "lora_dropout": "training only",
    "megatron_core": "a name that means nothing without megatron_config",
    "peft_version": "who wrote it",
    "qalora_group_size": "means nothing without use_qalora",
    "runtime_config": "where peft computes",
    "task_type": "which wrapper of peft is around the model",
}
# Fields that change what the factors mean. One that is not set is as good as absent, here and where it is not known.
REFUSED = (
    "alora_invocation_tokens", "arrow_config", "corda_config", "kasa_config", "layer_replication", "loftq_config",
    "lora_ga_config", "megatron_config", "monteclora_config", "target_parameters", "use_bdlora", "use_qalora",
    "velora_config",
)  # fmt: skip
# Of these beginnings the base stays what its file says; others (pissa, olora, loftq …) take a part out of the base.
_BEGINNINGS = (None, True, False, "gaussian", "eva", "orthogonal")
_LARGEST = 1e30


@dataclass(frozen=True)
class AdapterConfig:
    """The settings of a LoRA adapter.

    Attributes:
        label: What messages call the adapter.
        base: Name of the model that it was made for, or None.
        base_revision: Revision of that model, or None.
        uses_dora: Whether every module has magnitudes.
        bias: "none", "all" or "lora_only": which biases of the base were trained.
        lora_bias: Whether the factors have a bias.
        ties: Whether what is trained of the embedding is the unembedding's, too, where the base ties them.
        saved: Names of the modules that were saved whole.
        tokens: Trained rows by the end of a module's name; the empty end stands for the embedding.
    """

    label: str
    base: str | None
    base_revision: str | None
    uses_dora: bool
    bias: str
    lora_bias: bool
    ties: bool
    saved: tuple[str, ...]
    tokens: Mapping[str, tuple[int, ...]]
    _rank: int
    _alpha: float
    _uses_rslora: bool
    _ranks: Mapping[NamePattern, int] = field(repr=False)
    _alphas: Mapping[NamePattern, float] = field(repr=False)
    _targets: tuple[str, ...] | NamePattern | None = field(repr=False)
    _excluded: tuple[str, ...] | NamePattern | None = field(repr=False)
    _layers: tuple[int, ...] | None = field(repr=False)
    _layer_lists: tuple[str, ...] = field(repr=False)

    @property
    def file(self) -> str:
        """What messages call the file."""
        return f"adapter_config.json of {self.label}"

    def rank(self, module: str) -> int:
        """Returns the rank of a module's factors."""
        return int(self._by_pattern(self._ranks, module, self._rank))

    def scale(self, module: str) -> float:
        """Returns the factor that a module's change is multiplied by: ``alpha / r``, or ``alpha / sqrt(r)``."""
        rank = self.rank(module)
        alpha = float(self._by_pattern(self._alphas, module, self._alpha))
        return alpha / (math.sqrt(rank) if self._uses_rslora else rank)

    def targets(self, module: str) -> bool | None:
        """Whether a module has factors; None where that depends on more than its name."""
        dotted = f".{module}."
        if _covers(self._excluded, module, self) or any(f".{name}." in dotted for name in self.saved):
            return False
        if self._targets is None or self._targets == ("all-linear",):
            return None
        if not _covers(self._targets, module, self):
            return False
        # Layers are counted only where modules are listed, as in peft.
        return True if self._layers is None or isinstance(self._targets, NamePattern) else self._layer(module)

    def saves(self, module: str) -> bool:
        """Whether a module, or one that it is in, was saved whole: peft compares the ends of names, dots or not."""
        parts = module.split(".")
        within = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
        return any(name.endswith(end) for name in within for end in self.saved)

    def _layer(self, module: str) -> bool:
        parts = module.split(".")
        for place in range(1 if self._layer_lists else 2, len(parts) - 1):
            if parts[place].isdecimal() and (not self._layer_lists or parts[place - 1] in self._layer_lists):
                return int(parts[place][:9]) in (self._layers or ())
        return False

    def _by_pattern(self, values: Mapping[NamePattern, Any], module: str, default: Any) -> Any:
        for pattern, value in values.items():
            if _matches(pattern, module, self.file):
                return value
        return default


def _covers(names: tuple[str, ...] | NamePattern | None, module: str, config: AdapterConfig) -> bool:
    if names is None:
        return False
    if isinstance(names, NamePattern):
        return _matches(names, module, config.file)
    return any(module == name or module.endswith(f".{name}") for name in names)


def _matches(pattern: NamePattern, module: str, file: str) -> bool:
    try:
        return pattern.matches(module)
    except ValueError as fact:
        raise UnhandledConfigError(f"{file}: {fact}.\n  Name the modules instead of describing them.") from None


def read_adapter_config(config: Mapping[str, Any], label: str) -> AdapterConfig:
    """Returns the settings that a parsed ``adapter_config.json`` means.

    Args:
        config: As parsed.
        label: What messages call the adapter.

    Raises:
        UnhandledConfigError: It is no LoRA adapter, or has settings that are not known here; all are named at once.
        CorruptCheckpointError: A setting has a value that makes no sense.
    """
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UnhandledConfigError(
            f"{label} is an adapter of type {_short(kind)}; LORA can be merged here.\n"
            "  Merge it with peft (merge_and_unload) and load the result, where its type can be merged at all."
        )
    fields = _Fields(config, label)
    budget = Budget()
    tokens = fields.tokens()
    out = AdapterConfig(
        label=label,
        base=fields.text("base_model_name_or_path"),
        base_revision=fields.text("revision"),
        uses_dora=fields.flag("use_dora"),
        bias=fields.one_of("bias", ("none", "all", "lora_only")),
        lora_bias=fields.flag("lora_bias"),
        ties=fields.flag("ensure_weight_tying"),
        saved=fields.names("modules_to_save"),
        tokens=tokens,
        _rank=fields.whole("r", 8),
        _alpha=fields.number("lora_alpha", 8.0),
        _uses_rslora=fields.flag("use_rslora"),
        _ranks=fields.by_pattern("rank_pattern", fields.check_whole, budget),
        _alphas=fields.by_pattern("alpha_pattern", fields.check_number, budget),
        _targets=fields.names_or_pattern("target_modules", budget),
        _excluded=fields.names_or_pattern("exclude_modules", budget),
        _layers=fields.layers("layers_to_transform"),
        _layer_lists=fields.layer_lists("layers_pattern"),
    )
    beginning = fields.take("init_lora_weights")
    if isinstance(beginning, (list, dict)) or beginning not in _BEGINNINGS:
        fields.problems.append(
            f"init_lora_weights = {_short(beginning)}: such an adapter may be made for a base that has lost a part; "
            "convert it to plain LoRA (path_initial_model_for_weight_conversion of peft's save_pretrained)"
        )
    fields.refuse_the_rest()
    return out


class _Fields:
    """The fields of a config, which remembers those that were read and gathers what is wrong."""

    def __init__(self, config: Mapping[str, Any], label: str) -> None:
        self.config = config
        self.label = label
        self.read = {"peft_type"}
        self.problems: list[str] = []

    def take(self, name: str, default: Any = None) -> Any:
        """Returns a field, or the default where it is absent or null."""
        self.read.add(name)
        value = self.config.get(name)
        return default if value is None else value

    def corrupt(self, fact: str) -> CorruptCheckpointError:
        """Returns the error that says what makes no sense."""
        return CorruptCheckpointError(f"adapter_config.json of {self.label}: {fact}.\n  Is it damaged?")

    def refuse_the_rest(self) -> None:
        """Raises for all that was not read and has no reason to be ignored.

        Raises:
            UnhandledConfigError: There is such a field.
        """
        for name, value in self.config.items():
            if name in self.read or name in IGNORED or value is None:
                continue
            if isinstance(value, (bool, str, list, dict)) and not value:
                continue
            known = name in REFUSED
            self.problems.append(
                f"{name[:60]} = {_short(value)}: " + ("cannot be merged here" if known else "not known")
            )
        if self.problems:
            raise UnhandledConfigError(
                f"adapter_config.json of {self.label} says what is not implemented here:\n"
                + "\n".join(f"  {problem}" for problem in self.problems[:12])
                + "\n  the reader is checkpoint/adapter_config.py. Merge the adapter with peft (merge_and_unload) and "
                "load the result."
            )

    def text(self, name: str) -> str | None:
        """Returns a field that is a text; None where it is absent, null or empty."""
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            raise self.corrupt(f"{name} = {_short(value)} is not a text")
        return value or None

    def flag(self, name: str) -> bool:
        """Returns a field that is true or false."""
        value = self.take(name, False)
        if not isinstance(value, bool):
            raise self.corrupt(f"{name} = {_short(value)} is not true or false")
        return value

    def one_of(self, name: str, values: tuple[str, ...]) -> str:
        """Returns a field that is one of some words; the first is the default."""
        value = self.take(name, values[0])
        if value not in values:
            raise self.corrupt(f"{name} = {_short(value)} is none of {', '.join(values)}")
        return str(value)

    def whole(self, name: str, default: int) -> int:
        """Returns a field that is a whole number of at least 1."""
        return self.check_whole(name, self.take(name, default))

    def number(self, name: str, default: float) -> float:
        """Returns a field that is a finite number."""
        return self.check_number(name, self.take(name, default))

    def check_whole(self, name: str, value: Any) -> int:
        """Returns a value that is a whole number of at least 1."""
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1_000_000:
            raise self.corrupt(f"{name} = {_short(value)} is not a whole number of at least 1")
        return value

    def check_number(self, name: str, value: Any) -> float:
        """Returns a value that is a finite number."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not -_LARGEST < value < _LARGEST:
            raise self.corrupt(f"{name} = {_short(value)} is not a finite number")
        return float(value)

    def by_pattern(self, name: str, check: Callable[[str, Any], Any], budget: Budget) -> dict[NamePattern, Any]:
        """Returns a field of values by pattern, in order."""
        value = self.take(name, {})
        if not isinstance(value, dict):
            raise self.corrupt(f"{name} = {_short(value)} is not a dict")
        found = {key: check(f"{name}[{_short(key)}]", one) for key, one in value.items()}
        return {self._pattern(name, key, True, budget): one for key, one in found.items()}

    def _pattern(self, name: str, text: str, suffix: bool, budget: Budget) -> NamePattern:
        try:
            return NamePattern(text, suffix, budget)
        except ValueError as fact:
            raise UnhandledConfigError(
                f"adapter_config.json of {self.label}: {name}: {fact}.\n  Write it with names, dots, brackets, "
                "alternatives and counts, or name the modules instead of describing them."
            ) from None

    def names(self, name: str) -> tuple[str, ...]:
        """Returns a field that is a list of names."""
        value = self.take(name, [])
        if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
            raise self.corrupt(f"{name} = {_short(value)} is not a list of names")
        return tuple(value)

    def names_or_pattern(self, name: str, budget: Budget) -> tuple[str, ...] | NamePattern | None:
        """Returns a field that is a list of names, or a pattern of the whole name; None where nothing is said."""
        value = self.take(name)
        if isinstance(value, str) and value:
            return (value,) if value == "all-linear" else self._pattern(name, value, False, budget)
        return self.names(name) or None if value else None

    def layers(self, name: str) -> tuple[int, ...] | None:
        """Returns a field that is a place, or a list of places; None where it says nothing."""
        value = self.take(name)
        if value is None or value == []:
            return None
        found = value if isinstance(value, list) else [value]
        if not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in found):
            raise self.corrupt(f"{name} = {_short(value)} is not a list of layers")
        return tuple(found)

    def layer_lists(self, name: str) -> tuple[str, ...]:
        """Returns a field that is the name of the list of layers, or a list of such."""
        value = self.take(name)
        found = self.names(name) if isinstance(value, list) else (value,) if value else ()
        strange = [one for one in found if not isinstance(one, str) or not one.replace("_", "").isalnum()]
        if strange:
            self.problems.append(f"{name} = {_short(value)}: only plain names of lists of layers are known")
        return tuple(str(one) for one in found)

    def tokens(self) -> dict[str, tuple[int, ...]]:
        """Returns the trained rows by the end of a module's name."""
        name = "trainable_token_indices"
        value = self.take(name)
        if value is None:
            return {}
        found = value if isinstance(value, dict) else {"": value}
        return {key: self._rows(name, rows) for key, rows in found.items()}

    def _rows(self, name: str, rows: Any) -> tuple[int, ...]:
        is_list = isinstance(rows, list) and all(isinstance(one, int) and not isinstance(one, bool) for one in rows)
        if not is_list or not rows or min(rows) < 0 or len(set(rows)) < len(rows):
            raise self.corrupt(f"{name}: {_short(rows)} is not a list of tokens, each named once")
        return tuple(rows)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
