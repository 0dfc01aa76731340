"""What can be loaded, told by the tables themselves."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from transformer_lens import anatomy
from transformer_lens.anatomy import Layer, Mixture, Model
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading import processing
from transformer_lens.loading.architectures import SUPPORTED, UPSTREAM_FORMATS
from transformer_lens.loading.checkpoint import gguf_families
from transformer_lens.loading.conversion import Architecture, ConfigView
from transformer_lens.loading.sources.model_families import names_of

# A size, and another field, that a family has no default of. Patterns of layers are seen in the first few.
_EXAMPLE = 64
_SAID = {"act_fn": "gelu"}
_MOST_LAYERS = 8
_PAGE = """# Models

What has a table, by class. This page is printed by `transformer-lens models --markdown`, from the tables themselves; in
Python it is `transformer_lens.loading.supported_architectures()`. Any folder or hub repository of these classes loads,
listed name or not; a listed name has short names too (`make_model_alias_map()`).

- *Block* and *left out* are told for the defaults of the family's config: a checkpoint's own config may switch on a
  window, shared keys, biases or a scaling of rotary positions. `transformer-lens plan NAME` says what holds for it.
- Every class of transformers loads from safetensors and from `.bin` files, from a live model, and in 4 and 8 bits
  (bitsandbytes, packed on load or in the file: [quantization.md](quantization.md)). *Files* names what some have
  besides; `pth` is upstream's own format: its fields in `config.json`, its names in `*final.pth`, and training
  checkpoints in `checkpoints/*_<label>.pth`.
- What was run with which release of transformers: [compatibility.md](compatibility.md). A class that a release does not
  have cannot be compared with it; loading needs no class of transformers.
- What cannot be loaded, and what loads it instead: [errors.md](errors.md#unsupportedarchitectureerror).

"""


@dataclass(frozen=True)
class SupportedArchitecture:
    """One class of models that loads.

    Attributes:
        name: The class that ``config.json`` names.
        model_type: Its ``model_type``.
        table: The file of its table, inside ``transformer_lens/loading/``.
        block: What its blocks are made of, in a few words, for the defaults of its config.
        steps: Steps of processing that are legal for it.
        left_out: Those that are not, each with the reason.
        files: Forms of files it loads from.
        names: Listed names of its models.
    """

    name: str
    model_type: str
    table: str
    block: str
    steps: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    files: tuple[str, ...]
    names: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Returns the record as JSON has it."""
        return {**asdict(self), "left_out": dict(self.left_out)}


def supported_architectures() -> tuple[SupportedArchitecture, ...]:
    """Returns what can be loaded, a record a class, in the order of their names. Nothing is read."""
    known = {**SUPPORTED, **UPSTREAM_FORMATS}
    return tuple(_record(known[name]) for name in sorted(known, key=str.lower))


def markdown(records: tuple[SupportedArchitecture, ...]) -> str:
    """Returns ``docs/models.md``."""
    rows = [f"{len(records)} classes:\n", "| class, `model_type` | block | left out, and why | files | listed names |"]
    rows.append("|---|---|---|---|---|")
    for record in records:
        left_out = "; ".join(f"`{step}`: {reason}" for step, reason in record.left_out) or "nothing"
        files = ", ".join(file for file in record.files if file not in ("safetensors", "bin"))
        rows.append(
            f"| {record.name}, `{record.model_type}` | {record.block} | {left_out} | {files} | {_shown(record.names)} |"
        )
    return _PAGE + "\n".join(rows) + "\n"


def _shown(names: tuple[str, ...], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"`{name}`" for name in names[:most]) + more


class _Defaults(ConfigView):
    """A config that says next to nothing; a size that has no default is some number."""

    def size(self, name: str, default: int | None = None, kind: str = "width") -> int:
        """Returns the default of a field."""
        return super().size(name, _EXAMPLE if default is None else default, kind)

    def count(self, name: str, default: int | None = None, largest: int = 1000) -> int:
        """Returns the default of a field, of which there may be none."""
        return super().count(name, 1 if default is None else default, largest)


def _record(architecture: Architecture) -> SupportedArchitecture:
    fields = architecture.read_config(_Defaults(_SAID, architecture.name))
    fields = anatomy.first_layers(fields, min(fields["n_layers"], _MOST_LAYERS))
    cfg = HookedTransformerConfig(
        **fields, original_architecture=architecture.name, device="cpu", init_weights=False, n_devices=1
    )
    decided = processing.plan(processing.Flags(True, True, True, True, True), cfg)
    kinds = {family.class_name: kind for kind, family in gguf_families.FAMILIES.items()}
    gguf = ("GGUF",) if architecture.name in kinds else ()
    packed = tuple(sorted(architecture.unpacks))
    return SupportedArchitecture(
        name=architecture.name,
        model_type=architecture.model_type,
        table=architecture.file,
        block=block_in_words(anatomy.model_of(cfg)),
        steps=decided.steps,
        left_out=decided.skipped,
        files=("pth",) if architecture.name in UPSTREAM_FORMATS else ("safetensors", "bin", *gguf, *packed),
        names=names_of(architecture.name),
    )


def block_in_words(model: Model) -> str:
    """Returns what the blocks of a model are made of: norms, attention, MLP, and what multiplies."""
    words = [_norms(model), _attention(model), _mlps(model)]
    multiplies = {
        "embedding": model.embedding.multiplier,
        "branches": model.layers[0].attention.multiplier,
        "logits": model.unembedding.multiplier,
    }
    multiplied = [name for name, value in multiplies.items() if value != 1.0]
    if multiplied:
        words.append(f"multiplies {', '.join(multiplied)}")
    if model.unembedding.softcap > 0:
        words.append("capped logits")
    return "; ".join(word for word in words if word)


def _norms(model: Model) -> str:
    layer = model.layers[0]
    branch = layer.attention
    norms = {"before": branch.reads, "after": branch.writes, "behind the sum of": branch.closes}
    kinds = {norm.kind: norm for norm in norms.values() if norm is not None}
    if not kinds:
        return "no norms"
    kind, norm = next(iter(kinds.items()))
    places = " and ".join(place for place, found in norms.items() if found is not None)
    detail = "" if norm.has_weight else " without weights"
    if kind == "LN" and norm.has_weight and not norm.has_bias:
        detail = " without bias"
    embedding = ", and one behind the embedding" if model.embedding.norm is not None else ""
    side = "attention and MLP in parallel, " if layer.is_parallel else ""
    return f"{side}{kind}{detail} {places} each branch{embedding}"


def _attention(model: Model) -> str:
    all_layers = [layer.attends for layer in model.layers]
    first = all_layers[0]
    words = ["attention" if not first.shares_keys else "attention with shared keys"]
    turning = [attends.rotary for attends in all_layers if attends.rotary is not None]
    if turning:
        partial = "partial " if turning[0].dimensions < first.d_head else ""
        some = " on some layers" if len(turning) < len(all_layers) else ""
        words.append(f"{partial}rotary{' (adjacent pairs)' if turning[0].adjacent_pairs else ''}{some}")
    elif first.alibi:
        words.append("ALiBi")
    elif model.embedding.adds_positions:
        words.append("learned positions")
    windows = sum(attends.window is not None for attends in all_layers)
    if windows:
        words.append("window" if windows == len(all_layers) else "window on some layers")
    for says, what in (
        (first.q_norm is not None, "norms of queries and keys"),
        (first.softcap > 0, "capped scores"),
        (first.clip is not None, "clipped queries, keys and values"),
        (first.has_sinks, "sinks"),
    ):
        if says:
            words.append(what)
    return ", ".join(words)


def _mlps(model: Model) -> str:
    kinds = list(dict.fromkeys(_mlp(layer) for layer in model.layers))
    return " or ".join(kinds)


def _mlp(layer: Layer) -> str:
    computes = layer.computes
    if computes is None:
        return "no MLP"
    if isinstance(computes, Mixture):
        shared = " and one that all share" if computes.d_shared is not None else ""
        return f"{computes.router.n_chosen} of {computes.n_experts} experts{shared} ({computes.activation})"
    return f"{'gated ' if computes.is_gated else ''}MLP ({computes.activation})"
