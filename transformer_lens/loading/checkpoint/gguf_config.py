"""The metadata of a GGUF file as the config.json that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformer_lens.loading.checkpoint.gguf_families import Family
from transformer_lens.loading.checkpoint.gguf_header import GGUFHeader
from transformer_lens.loading.errors import CorruptCheckpointError, UnhandledConfigError


class _Metadata:
    """The fields of one architecture, by the end of their names."""

    def __init__(self, kind: str, fields: Mapping[str, Any], path: Path) -> None:
        self.kind, self.fields, self.path = kind, fields, path

    def get(self, name: str, default: Any = None) -> Any:
        return self.fields.get(f"{self.kind}.{name}", default)

    def size(self, name: str, default: int | None = None) -> int:
        """Returns a whole number that has to be there."""
        value = self.get(name, default)
        if isinstance(value, tuple):
            raise UnhandledConfigError(f"{self.path}: {self.kind}.{name} differs from layer to layer.")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            found = "is missing" if value is None else f"is {value!r}"
            raise CorruptCheckpointError(
                f"{self.path}: its metadata {self.kind}.{name} {found}; the model cannot be built without this size."
            )
        return value

    def number(self, name: str, default: float | None = None) -> float | None:
        value = self.get(name, default)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise CorruptCheckpointError(f"{self.path}: its metadata {self.kind}.{name} is {value!r}, not a number.")
        return value


def config_of(family: Family, header: GGUFHeader, frequencies: Mapping[str, list[float]], path: Path) -> dict[str, Any]:
    """Returns the config.json that the metadata mean.

    Args:
        family: The architecture.
        header: Of the file.
        frequencies: The divisors of rotary frequencies that the file holds, by tensor.
        path: The file, for messages.

    Raises:
        CorruptCheckpointError: A size is missing.
        UnhandledConfigError: Something is set that cannot be said in config.json.
    """
    metadata = _Metadata(family.kind, header.fields, path)
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise CorruptCheckpointError(f"{path} has no token_embd.weight, the embedding: is it a language model?")
    common = {
        "architectures": [family.class_name],
        "model_type": family.model_type,
        "vocab_size": embedding.shape[0],
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "bos_token_id": header.fields.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": header.fields.get("tokenizer.ggml.eos_token_id"),
    }
    if family.model_type == "gpt2":
        return {
            **common,
            "n_embd": metadata.size("embedding_length"),
            "n_head": metadata.size("attention.head_count"),
            "n_layer": metadata.size("block_count"),
            "n_positions": metadata.size("context_length"),
            "n_inner": metadata.size("feed_forward_length"),
            "layer_norm_epsilon": metadata.number("attention.layer_norm_epsilon", 1e-5),
        }
    heads, width, n_ctx = (
        metadata.size("attention.head_count"),
        metadata.size("embedding_length"),
        metadata.size("context_length"),
    )
    d_head = metadata.size("attention.key_length", width // heads)
    config = {
        **common,
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.size("attention.head_count_kv", heads),
        "num_hidden_layers": metadata.size("block_count"),
        "intermediate_size": metadata.size("feed_forward_length"),
        "max_position_embeddings": n_ctx,
        "rms_norm_eps": metadata.number("attention.layer_norm_rms_epsilon", 1e-6),
        "rope_theta": metadata.number("rope.freq_base", 10000.0),
        "rope_scaling": _rope_scaling(metadata, frequencies, n_ctx),
        "head_dim": d_head,
    }
    rotated = metadata.size("rope.dimension_count", d_head)
    if family.model_type == "phi3":
        config["partial_rotary_factor"] = rotated / d_head
    elif rotated != d_head:
        raise UnhandledConfigError(
            f"{path}: {rotated} of a head's {d_head} dimensions are rotated, which {family.class_name} cannot say."
        )
    if family.model_type in ("phi3", "mistral"):
        config["sliding_window"] = metadata.get("attention.sliding_window") or None
    return config


def _rope_scaling(metadata: _Metadata, frequencies: Mapping[str, list[float]], n_ctx: int) -> dict[str, Any] | None:
    """Returns how frequencies are stretched; lists of divisors are what longrope has."""
    original = metadata.size("rope.scaling.original_context_length", n_ctx)
    kind, factor = metadata.get("rope.scaling.type"), metadata.number("rope.scaling.factor")
    if "rope_freqs.weight" in frequencies:
        # Llama 3's frequencies, with the stretching already worked out: the same divisors at every length.
        divisors = frequencies["rope_freqs.weight"]
        return {
            "rope_type": "longrope", "short_factor": divisors, "long_factor": divisors, "attention_factor": 1.0,
            "original_max_position_embeddings": n_ctx,
        }  # fmt: skip
    lists = [name for name in ("rope_factors_short.weight", "rope_factors_long.weight") if name in frequencies]
    if len(lists) == 1:
        raise CorruptCheckpointError(
            f"{metadata.path} has {lists[0]} alone; of divisors for short and long there are two."
        )
    if lists:
        _refuse_beyond(metadata, ("type", "factor", "attn_factor", "original_context_length", "finetuned"))
        return {
            "rope_type": "longrope",
            "short_factor": frequencies[lists[0]],
            "long_factor": frequencies[lists[1]],
            "attention_factor": metadata.number("rope.scaling.attn_factor"),
            "original_max_position_embeddings": original,
        }
    if kind in (None, "none"):
        return None
    if kind == "linear":
        _refuse_beyond(metadata, ("type", "factor", "original_context_length", "finetuned"))
        return {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        return _yarn(metadata, factor, original)
    raise UnhandledConfigError(f"{metadata.path}: {metadata.kind}.rope.scaling.type is {kind!r}, which is not known.")


def _yarn(metadata: _Metadata, factor: float | None, original: int) -> dict[str, Any]:
    """Returns yarn's numbers; the converter copies them from config.json, ``yarn_attn_factor`` too.

    ``attn_factor``, which other converters write, counts on top of yarn's own factor for some and replaces it for
    others: nothing in the file says which.
    """
    _refuse_beyond(
        metadata,
        (
            "type", "factor", "original_context_length", "finetuned", "yarn_attn_factor", "yarn_beta_fast",
            "yarn_beta_slow", "yarn_ext_factor",
        ),
    )  # fmt: skip
    if metadata.number("rope.scaling.yarn_ext_factor", 1.0) != 1.0:
        raise UnhandledConfigError(
            f"{metadata.path}: {metadata.kind}.rope.scaling.yarn_ext_factor is not 1, which config.json cannot say."
        )
    names = {"attention_factor": "yarn_attn_factor", "beta_fast": "yarn_beta_fast", "beta_slow": "yarn_beta_slow"}
    numbers = {ours: metadata.number(f"rope.scaling.{theirs}") for ours, theirs in names.items()}
    given = {name: number for name, number in numbers.items() if number is not None}
    return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original, **given}


def _refuse_beyond(metadata: _Metadata, known: tuple[str, ...]) -> None:
    """Raises for settings of the stretching that are not known to mean anything here."""
    start = f"{metadata.kind}.rope.scaling."
    strange = sorted(
        name for name in metadata.fields if name.startswith(start) and name.removeprefix(start) not in known
    )
    if strange:
        raise UnhandledConfigError(
            f"{metadata.path}: what {', '.join(strange)} means for this kind of stretching is not known here.\n"
            "  Load the checkpoint that the file was converted from instead."
        )
