"""Merges an adapter into the tensors that it touches: which they are, what they become, what does not fit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from transformer_lens.loading.checkpoint.adapter import Adapter
from transformer_lens.loading.checkpoint.checkpoint import Checkpoint, Merge
from transformer_lens.loading.checkpoint.low_rank import LowRank, with_low_rank, with_rows, with_sum
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.convert import collapse, refuse_all_but_floats
from transformer_lens.loading.conversion.recipes import Take
from transformer_lens.loading.errors import LayoutMismatchError, MissingTensorError, UnexpectedTensorError
from transformer_lens.loading.quantization.promises import as_in_file
from transformer_lens.loading.weights import LazyTensor

_FACTOR = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?P<leaf>\.weight|\.bias)?"
)
_ROWS = re.compile(r"(?P<module>.+?)(\.token_adapter)?\.trainable_tokens_delta")
_UNEMBEDDING = "unembed.W_U"


def with_adapter(
    checkpoint: Checkpoint, adapter: Adapter, architecture: Architecture, n_layers: int | None
) -> Checkpoint:
    """Returns a checkpoint with an adapter merged into the tensors that it touches.

    Args:
        checkpoint: Left as it is.
        adapter: What is merged.
        architecture: The base's table: it knows what lies transposed, and what is tied.
        n_layers: How many layers the checkpoint was opened for; None: all.

    Raises:
        UnexpectedTensorError: The adapter touches what the base does not have, or what its config does not speak of.
        MissingTensorError: It lacks what its config speaks of.
        LayoutMismatchError: A shape does not fit the base or the rank.
    """
    merging = _Merging(checkpoint, adapter, architecture, n_layers)
    merging.run()
    changed = merging.changed
    config = checkpoint.config
    if merging.vocabulary is not None:
        config = {**config, "vocab_size": merging.vocabulary}
    return replace(
        checkpoint,
        config=config,
        weights=checkpoint.weights.updated(changed),
        files=(*checkpoint.files, *adapter.files),
        adapters=(*checkpoint.adapters, adapter.label),
        merged={**checkpoint.merged, **merging.merges},
    )


class _Merging:
    """One adapter on its way into one checkpoint.

    Attributes:
        changed: New promises by key.
        merges: What was done to each of them.
        vocabulary: How many tokens there are, where that is not what it was.
    """

    def __init__(
        self, checkpoint: Checkpoint, adapter: Adapter, architecture: Architecture, n_layers: int | None
    ) -> None:
        self.changed: dict[str, LazyTensor] = {}
        self.merges: dict[str, Merge] = {}
        self.vocabulary: int | None = None
        self._checkpoint, self._adapter, self._architecture = checkpoint, adapter, architecture
        self._config, self._weights = adapter.config, checkpoint.weights
        self._beyond = architecture.beyond(n_layers)
        # Tables of which only trained tokens have changed: these peft ties to the unembedding.
        self._only_rows: set[str] = set()
        self._embedding, self._head = self._ends()

    def run(self) -> None:
        """Sorts the adapter's tensors, and makes a promise of each that they change."""
        factors: dict[str, dict[str, LazyTensor]] = {}
        rows: dict[str, LazyTensor] = {}
        whole: dict[str, LazyTensor] = {}
        for name, tensor in self._adapter.tensors.items():
            if self._beyond(name):
                continue
            factor, table = _FACTOR.fullmatch(name), _ROWS.fullmatch(name)
            if factor is not None:
                part = factor["part"] + (".bias" if factor["leaf"] == ".bias" else "")
                parts = factors.setdefault(factor["module"], {})
                if part in parts:
                    raise UnexpectedTensorError(f"{self._adapter.label} holds {part} of {factor['module']} twice.")
                parts[part] = tensor
            elif table is not None:
                rows[table["module"]] = tensor
            else:
                whole[name.replace(".base_layer.", ".")] = tensor
        self._refuse_strangers(factors, rows, whole)
        self._refuse_missing(factors, rows, whole)
        for name, tensor in whole.items():
            self._replace(name, tensor)
        for module, tensor in rows.items():
            self._replace_rows(module, tensor)
        for module, parts in factors.items():
            self._add(module, parts)
        self._untie()
        self._check_vocabulary()

    def _ends(self) -> tuple[str | None, str | None]:
        """Returns the keys of the embedding and of an unembedding that may be tied to it; None where there are none."""
        recipe = self._architecture.once.get(_UNEMBEDDING)
        if not isinstance(recipe, Take) or recipe.tied_to is None:
            return None, None
        names = [recipe.tied_to.replace("{p}", prefix) for prefix in self._architecture.prefixes]
        head = recipe.key if isinstance(recipe.key, str) else recipe.key[0]
        return next((name for name in names if name in self._weights), None), head

    def _is_tied(self) -> bool:
        return self._head not in self._weights and self._architecture.ties(self._checkpoint.config)

    def _key(self, name: str) -> str | None:
        """Returns the key of a tensor of the base; also one that is tied and so has no tensor of its own."""
        prefix = self._architecture.prefix
        for key in (name, name.removeprefix(prefix), prefix + name):
            if key in self._weights or (key == self._head and self._is_tied()):
                return key
        return None

    def _base(self, key: str) -> LazyTensor:
        """Returns what a key stands for so far; a tied unembedding begins as the base's own embedding."""
        if key in self.changed:
            return self.changed[key]
        if key not in self._weights:
            assert self._embedding is not None, key
            return self._weights[self._embedding]
        return self._weights[key]

    def _note(self, key: str, promise: LazyTensor, what: str) -> None:
        before = self._checkpoint.merged.get(key)
        merge = self.merges.get(key) or (None if before is None else before)
        dtype = self._base(key).dtype if merge is None else merge.dtype
        refuse_all_but_floats({key: self._base(key)}, self._checkpoint.label)
        said = what if merge is None else f"{merge.what}; {what}"
        self.changed[key] = promise
        self.merges[key] = Merge(said, dtype)

    def _refuse_strangers(
        self, factors: Mapping[str, Any], rows: Mapping[str, Any], whole: Mapping[str, LazyTensor]
    ) -> None:
        """Raises for what the base does not have, then for what the config does not speak of."""
        label = self._adapter.label
        modules = (*factors, *rows)
        strange = [module for module in modules if self._key(f"{module}.weight") is None]
        strange += [name for name in whole if self._key(name) is None]
        if strange:
            raise UnexpectedTensorError(
                f"{label} touches modules that the base model does not have:\n"
                + "\n".join(f"  {line}" for line in collapse(strange))
                + f"\n  it says that it was made for {self._adapter.base!r}; is that the base?"
            )
        keys = {module: self._key(f"{module}.weight") for module in factors}
        # What is tied gets the factors of the embedding, and peft writes them twice.
        tied = {self._head} if self._config.ties and self._embedding in keys.values() else set()
        unsaid = [name for name, key in keys.items() if key not in tied and self._config.targets(name) is False]
        unsaid += [module for module in rows if self._tokens(module) is None]
        unsaid += [name for name in whole if not self._may_be_whole(name, factors)]
        if unsaid:
            raise UnexpectedTensorError(
                f"{label} holds tensors for modules of which its config says nothing:\n"
                + "\n".join(f"  {line}" for line in collapse(unsaid))
                + "\n  peft would leave them out. Are adapter_config.json and the weights of one adapter?"
            )

    def _may_be_whole(self, name: str, factors: Mapping[str, Any]) -> bool:
        module, _, leaf = name.rpartition(".")
        if leaf == "bias" and self._config.bias != "none":
            return self._config.bias == "all" or module in factors
        # peft writes the embedding and the unembedding where they were trained or resized, also unasked.
        return self._config.saves(module) or self._key(name) in (self._embedding, self._head)

    def _tokens(self, module: str) -> tuple[int, ...] | None:
        """Returns which rows of a module were trained; None where the config does not say."""
        tokens = self._config.tokens
        named = [rows for end, rows in tokens.items() if end and (module == end or module.endswith(f".{end}"))]
        if named:
            return named[0]
        return tokens.get("") if self._key(f"{module}.weight") == self._embedding else None

    def _refuse_missing(
        self, factors: Mapping[str, Any], rows: Mapping[str, Any], whole: Mapping[str, LazyTensor]
    ) -> None:
        """Raises where the config speaks of what is not there."""
        has_factors = {self._key(f"{module}.weight") for module in factors}
        missing: list[str] = []
        for key, tensor in self._weights.items():
            module = key.removesuffix(".weight")
            if len(tensor.shape) != 2 or module == key or key in has_factors:
                continue
            names = (module, self._architecture.prefix + module)
            if any(self._config.targets(name) for name in names):
                missing.append(f"{module}: its factors")
        bases = [*self._weights, *([self._head] if self._head and self._is_tied() else [])]
        kept = {self._key(name) for name in whole}
        missing += [
            f"{key}: saved whole" for key in bases if key.endswith(".weight") and self._saves(key) and key not in kept
        ]
        if self._config.tokens and not rows:
            missing.append("the rows of trained tokens")
        if missing:
            raise MissingTensorError(
                f"{self._adapter.label} lacks tensors that its config asks for:\n"
                + "\n".join(f"  {line}" for line in collapse(missing))
                + "\n  is the download complete, and were all parts gathered when it was saved?"
            )

    def _saves(self, key: str) -> bool:
        """Whether a tensor of the base belongs to a module that was saved whole."""
        names = (key, self._architecture.prefix + key)
        return any(self._config.saves(name.rpartition(".")[0]) for name in names)

    def _replace(self, name: str, tensor: LazyTensor) -> None:
        key = self._key(name)
        assert key is not None
        base = self._base(key)
        shape = self._numbers(key).shape
        resizes = key in (self._embedding, self._head) and base.packed is None and len(tensor.shape) == 2
        if tensor.shape != shape and not (resizes and tensor.shape[1] == shape[1] and tensor.shape[0] > 0):
            raise self._mismatch(name, tensor, shape)
        size = "" if tensor.shape == shape else f", {tensor.shape[0]} rows for {shape[0]}"
        what = f"taken whole from {self._adapter.label}{size}"
        origin = replace(tensor.origin, key=key, steps=(*base.origin.steps, what))
        self._note(key, replace(tensor, origin=origin), what)

    def _replace_rows(self, module: str, tensor: LazyTensor) -> None:
        key = self._key(f"{module}.weight")
        rows = self._tokens(module)
        assert key is not None and rows is not None
        base = self._numbers(key)
        if tensor.shape != (len(rows), base.shape[1]):
            raise self._mismatch(f"{module}.trainable_tokens_delta", tensor, (len(rows), base.shape[1]))
        if max(rows) >= base.shape[0]:
            raise LayoutMismatchError(
                f"{self._config.file} names the token {max(rows)}, and {key} of {self._checkpoint.label} has "
                f"{base.shape[0]} rows.\n  Was the vocabulary enlarged before training? Save the embedding with the "
                "adapter (save_embedding_layers=True)."
            )
        if key not in self.changed:
            self._only_rows.add(key)
        what = f"{len(rows)} rows from {self._adapter.label}"
        self._note(key, with_rows(base, rows, tensor, what), what)

    def _numbers(self, key: str) -> LazyTensor:
        base = self._base(key)
        return base if base.packed is None else as_in_file(base, self._architecture.is_transposed(key))

    def _add(self, module: str, parts: Mapping[str, LazyTensor]) -> None:
        key = self._key(f"{module}.weight")
        assert key is not None
        base = self._numbers(key)
        embeds = "lora_embedding_A" in parts or "lora_embedding_B" in parts
        down, up = ("lora_embedding_A", "lora_embedding_B") if embeds else ("lora_A", "lora_B")
        wanted = {down, up}
        if self._config.uses_dora:
            wanted.add("lora_magnitude_vector")
        if self._config.lora_bias and not embeds:
            wanted.add(f"{up}.bias")
        if missing := sorted(wanted - set(parts)):
            raise MissingTensorError(
                f"{self._adapter.label} has no {' and no '.join(missing)} for {module}, which its config asks for."
            )
        if strange := sorted(set(parts) - wanted):
            raise UnexpectedTensorError(
                f"{self._adapter.label} has {' and '.join(strange)} for {module}, of which its config says nothing."
            )
        if len(base.shape) != 2:
            raise self._mismatch(f"{module}.{down}", parts[down], base.shape)
        transposed = embeds or self._architecture.is_transposed(key)
        inputs, outputs = base.shape if transposed else base.shape[::-1]
        rank, scale = self._config.rank(module), self._config.scale(module)
        shapes = {down: (rank, inputs), up: (outputs, rank)}
        for part, shape in shapes.items():
            if parts[part].shape != shape:
                raise self._mismatch(f"{module}.{part}", parts[part], shape)
        magnitude = parts.get("lora_magnitude_vector")
        if magnitude is not None and magnitude.shape not in ((outputs,), (1, outputs), (outputs, 1)):
            raise self._mismatch(f"{module}.lora_magnitude_vector", magnitude, (outputs,))
        change = LowRank(parts[down], parts[up], scale, magnitude)
        self._only_rows.discard(key)
        kind = "LoRA" if magnitude is None else "DoRA"
        what = f"{kind} of rank {rank}, scale {scale:g}, of {self._adapter.label}"
        self._note(key, with_low_rank(base, [change], transposed, f"merged with {self._adapter.label}"), what)
        if f"{up}.bias" in parts:
            self._add_bias(module, parts[f"{up}.bias"], scale, outputs)

    def _add_bias(self, module: str, bias: LazyTensor, scale: float, outputs: int) -> None:
        key = self._key(f"{module}.bias")
        if key is None:
            raise UnexpectedTensorError(
                f"{self._adapter.label} has a bias for {module} (lora_bias), which has none in "
                f"{self._checkpoint.label}.\n  Merge it with peft into a model whose config has that bias."
            )
        if bias.shape != (outputs,):
            raise self._mismatch(f"{module}.lora_B.bias", bias, (outputs,))
        what = f"bias of the factors, scale {scale:g}, of {self._adapter.label}"
        self._note(key, with_sum(self._base(key), [(scale, bias)], what), what)

    def _untie(self) -> None:
        """Gives a tied unembedding the base's embedding where only the embedding was trained, as peft computes it."""
        if self._embedding not in self.changed or self._head in self.changed or not self._is_tied():
            return
        if self._config.ties or self._embedding in self._only_rows:
            return
        assert self._head is not None
        base = self._weights[self._embedding]
        if self.changed[self._embedding].shape != base.shape:
            raise MissingTensorError(
                f"{self._adapter.label} holds an embedding of {self.changed[self._embedding].shape[0]} rows and no "
                "unembedding: peft keeps the base's, whose new rows are in no file.\n  Save both (modules_to_save "
                "with the embedding and the head), or train with ensure_weight_tying=True."
            )
        self._note(self._head, base, f"the base's embedding: {self._adapter.label} changes the embedding alone")

    def _check_vocabulary(self) -> None:
        """Notes how many tokens there are, and raises where the two ends do not agree."""
        ends = [key for key in (self._embedding, self._head) if key is not None]
        sizes = {key: self._base(key).shape[0] for key in ends if key in self.changed or key in self._weights}
        if len(set(sizes.values())) > 1:
            raise LayoutMismatchError(
                f"{self._adapter.label}: "
                + " and ".join(f"{key} has {size} rows" for key, size in sizes.items())
                + ".\n  Was the vocabulary enlarged, and only one of the two saved?"
            )
        if sizes and self._embedding is not None and sizes[self._embedding] != self._weights[self._embedding].shape[0]:
            self.vocabulary = sizes[self._embedding]

    def _mismatch(self, name: str, tensor: LazyTensor, expected: tuple[int, ...]) -> LayoutMismatchError:
        module = name.rpartition(".")[0]
        return LayoutMismatchError(
            f"{name} of {self._adapter.label}\n"
            f"  in the adapter:  {tensor.shape} {str(tensor.dtype)[6:]}\n"
            f"  expected:        {expected}, by the tensor of {self._checkpoint.label} and the rank "
            f"{self._config.rank(module)} of adapter_config.json\n"
            f"  it says that it was made for {self._adapter.base!r}; is that the base?"
        )
