"""The tokenizer beside the weights; an importer of transformers, where it is used."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformer_lens.loading.errors import LoadingError
from transformer_lens.loading.sources.json_files import read_json
from transformer_lens.loading.sources.remote_code import code_named
from transformer_lens.loading.sources.source import GGUFSource, Source

# Any of the first says that there is a tokenizer; all that are there are taken.
_MARKERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_FILES = (
    *_MARKERS, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt",
    "chat_template.jinja", "chat_template.json",
)  # fmt: skip


def has_tokenizer(source: Source) -> bool:
    """Whether there is a tokenizer in a place."""
    return any(source.find(name) is not None for name in _MARKERS)


def load_tokenizer(source: Source, *, trust_remote_code: bool = False) -> Any | None:
    """Returns the tokenizer beside the weights, or None where there is none.

    Only the tokenizer's own files reach transformers, config files as scrubbed data (no ``auto_map``, no keys that
    start with an underscore), and nothing is asked of the network besides fetching those files from the source.

    Args:
        source: Where the files are.
        trust_remote_code: Only True lets a tokenizer bring its own code: then transformers gets the folder, or the
            repository in its revision, as it is.

    Raises:
        LoadingError: The tokenizer is broken, or code that it brings is all that says what it is.
    """
    if isinstance(source, GGUFSource):
        inside = _load_from_gguf(source.path)
        if inside is not None:
            # The name it is loaded by, and not the folder that the file is in.
            inside.name_or_path = source.label
        return inside
    paths = {name: path for name in _FILES if (path := source.find(name)) is not None}
    if not any(name in paths for name in _MARKERS):
        return None
    from transformers import AutoTokenizer

    if trust_remote_code is True:
        name, where = source.for_transformers()
        return AutoTokenizer.from_pretrained(name, **where, trust_remote_code=True)
    _refuse_code(source, paths)
    with tempfile.TemporaryDirectory(prefix="transformer_lens_tokenizer_") as folder:
        for name, path in paths.items():
            target = Path(folder) / name
            if name.endswith("config.json"):
                target.write_text(json.dumps(_scrubbed(read_json(path))))
            else:
                shutil.copyfile(path, target)
        config = source.find("config.json")
        if config is not None:
            # AutoTokenizer asks the model's type where the tokenizer's config does not name a class.
            model_type = read_json(config).get("model_type")
            (Path(folder) / "config.json").write_text(json.dumps({"model_type": model_type}))
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:
            linked = [name for name in paths if name in source.links]
            # What transformers says may quote a file, and a link may lead to one that is none of a tokenizer's.
            said = f"its files {', '.join(linked)} are links to elsewhere, so no more is told" if linked else str(error)
            raise LoadingError(
                f"The tokenizer of {source.label} cannot be loaded: {type(error).__name__}: {said}\n"
                "  Give one with tokenizer=..., or remove its files to load the weights without."
            ) from (None if linked else error)
    tokenizer.name_or_path = source.label
    return tokenizer


def _refuse_code(source: Source, paths: Mapping[str, Path]) -> None:
    """Raises for a tokenizer that only code of the checkpoint defines: transformers has no class of its name."""
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    given = read_json(paths["tokenizer_config.json"]) if "tokenizer_config.json" in paths else {}
    named = code_named(given, "AutoTokenizer")
    if named is None:
        config = source.find("config.json")
        named = None if config is None else code_named(read_json(config), "AutoTokenizer")
    own_class = given.get("tokenizer_class")
    if named is None or (isinstance(own_class, str) and tokenizer_class_from_name(own_class) is not None):
        return
    raise LoadingError(
        f"The tokenizer of {source.label} is defined by code of its own: {named} (auto_map). It was neither opened nor "
        "run.\n  Give a tokenizer with tokenizer=..., or, if you have read that file and trust it, "
        "trust_remote_code=True."
    )


def _scrubbed(config: dict[str, Any]) -> dict[str, Any]:
    """Leaves out what names code, what transformers keeps for itself, and paths: files are found by their names."""
    return {
        key: value
        for key, value in config.items()
        if key not in ("auto_map", "name_or_path") and not key.startswith("_") and not key.endswith("_file")
    }


def _load_from_gguf(path: Path) -> Any | None:
    from transformers import AutoTokenizer

    from transformer_lens.loading.checkpoint.gguf_header import read_gguf_header

    if "tokenizer.ggml.model" not in read_gguf_header(path).fields:
        return None
    try:
        return AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name, local_files_only=True)
    except Exception as error:
        warnings.warn(
            f"The tokenizer inside {path.name} cannot be read by this transformers ({type(error).__name__}: {error}); "
            "the model has none. Give one with tokenizer=....",
            stacklevel=2,
        )
        return None
