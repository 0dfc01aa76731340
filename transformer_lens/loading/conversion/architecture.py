"""An architecture: a table of recipes, and what its config means."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Recipe

_MOST_DIGITS = 9


@dataclass(frozen=True)
class Architecture:
    """One family.

    Attributes:
        name: Name of the transformers class.
        model_type: ``model_type`` in its config.
        prefix: What keys may start with; files come with it and without.
        other_prefixes: What they may start with in place of it.
        anchor: A key, without prefix, that every file has: it tells whether the prefix is there.
        layer: Template of the start of every key of a layer.
        once: Recipes of the parameters outside the blocks.
        block: Recipes of the parameters of a block.
        dropped: Templates of keys that are not read, each with the reason.
        read_config: Turns a config into fields of ours; what it does not take must be ignorable by name.
        ignored: Config fields of this family that change nothing here, each with the reason.
        required: Config fields that must have a value where they are there, because another is not implemented.
        transposed: Whether the matrices of blocks lie [in, out] in the file (Conv1D).
        ties_by_default: Whether the unembedding is the embedding where the config does not say.
        said_by: Where the config stands, for messages.
        text_config: The field that holds the decoder's own config, in a model of several parts; None in any other.
        beside_text: Fields beside that one that change nothing of the decoder, each with the reason.
        unpacks: Methods of quantization whose packed tensors the table itself turns into numbers.
        written_in: Name of the module its table stands in; None where it is `model_type`.
        ahead: Fields that count layers behind the last, which predict tokens further ahead; a file that holds them has
            them dropped.
        aliases: Other names that files give the class.
        dropped_parts: What the keys of other parts start with, each with the reason.
    """

    name: str
    model_type: str
    prefix: str
    anchor: str
    layer: str
    once: Mapping[str, Recipe]
    block: Mapping[str, Recipe]
    read_config: Callable[[ConfigView], dict[str, Any]]
    dropped: Mapping[str, str] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)
    transposed: bool = False
    ties_by_default: bool = False
    other_prefixes: tuple[str, ...] = ()
    required: Mapping[str, Any] = field(default_factory=dict)
    said_by: str = "config.json"
    text_config: str | None = None
    beside_text: Mapping[str, str] = field(default_factory=dict)
    dropped_parts: Mapping[str, str] = field(default_factory=dict)
    unpacks: frozenset[str] = frozenset()
    written_in: str | None = None
    ahead: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Every prefix that a file may have; the empty one comes last."""
        return tuple(dict.fromkeys((self.prefix, *self.other_prefixes, "")))

    @property
    def file(self) -> str:
        """The file that its table stands in, for messages."""
        return f"architectures/{self.written_in or self.model_type}.py"

    @property
    def headless(self) -> str:
        """Name of the transformers class that has the same tensors without the unembedding."""
        return re.sub("(LMHeadModel|ForCausalLM)$", "Model", self.name)

    def beyond(self, n_layers: int | None) -> Callable[[str], bool]:
        """Returns a predicate that is true for keys of layers from `n_layers` on; None: for no key."""
        if n_layers is None:
            return lambda key: False
        head, _, tail = self.layer.partition("{i}")
        prefixes = "|".join(re.escape(prefix) for prefix in self.prefixes)
        pattern = re.compile(re.escape(head).replace(re.escape("{p}"), f"(?:{prefixes})") + r"(\d+)" + re.escape(tail))

        def is_beyond(key: str) -> bool:
            found = pattern.match(key)
            # A name with more digits is a stranger's: Python makes no number of thousands of them.
            return found is not None and (len(found.group(1)) > _MOST_DIGITS or int(found.group(1)) >= n_layers)

        return is_beyond

    def is_ahead(self, config: Mapping[str, Any]) -> Callable[[str], bool]:
        """Returns a predicate that is true for keys of layers that predict tokens further ahead."""
        fields = self.text_fields(config)
        n_layers = fields.get("num_hidden_layers")
        if not self.ahead or not isinstance(n_layers, int):
            return lambda key: False
        counts = [count for name in self.ahead if isinstance(count := fields.get(name), int)]
        behind, beyond = self.beyond(n_layers), self.beyond(n_layers + max([1, *counts]))
        return lambda key: behind(key) and not beyond(key)

    def left_out(self, first: int | None, n_layers: int) -> Callable[[str], bool]:
        """Returns a predicate that is true for keys of layers that are not asked for.

        Args:
            first: How many of the first layers are asked for; None for all.
            n_layers: Layers by the config. Those of a file that has more are not left out: they are an error.
        """
        unwanted, unknown = self.beyond(first), self.beyond(n_layers)
        return lambda key: unwanted(key) and not unknown(key)

    def is_transposed(self, key: str) -> bool:
        """Whether the matrix under a key lies [in, out]."""
        return self.transposed and self.beyond(0)(key)

    def text_fields(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the fields that say what the decoder is: the config itself, or the part of it that does.

        Whether embedding and unembedding are one is said beside that part.
        """
        inner = None if self.text_config is None else config.get(self.text_config)
        if not isinstance(inner, Mapping):
            return config
        tied = config.get("tie_word_embeddings")
        return inner if tied is None else {**inner, "tie_word_embeddings": tied}

    def ties(self, config: Mapping[str, Any]) -> bool:
        """Whether the config makes the unembedding the embedding."""
        value = self.text_fields(config).get("tie_word_embeddings")
        return self.ties_by_default if value is None else bool(value)
