"""The tokenizer beside the weights; an importer of transformers, where it is used."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any

from transformer_lens.loading.errors import CorruptCheckpointError, LoadingError
from transformer_lens.loading.sources.handed_over import handed_over, is_failure
from transformer_lens.loading.sources.json_files import read_json
from transformer_lens.loading.sources.remote_code import code_named
from transformer_lens.loading.sources.source import GGUFSource, Source

# Any of the first says that there is a tokenizer; all that are there are taken.
_MARKERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_FILES = (
    *_MARKERS, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt",
    "chat_template.jinja", "chat_template.json",
)  # fmt: skip
# The largest tokenizer.json of an open model (two hundred and fifty thousand tokens) has a quarter.
_LARGEST = 128 << 20


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
        inside = _load_from_gguf(source, trust_remote_code is True)
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
        with _told_of(source, paths):
            return _tried(AutoTokenizer.from_pretrained(name, **where, trust_remote_code=True))
    with _told_of(source, paths):
        _refuse_code(source, paths)
    with tempfile.TemporaryDirectory(prefix="transformer_lens_tokenizer_") as folder:
        for name, path in paths.items():
            if path.stat().st_size > _LARGEST:
                raise CorruptCheckpointError(
                    f"{path} has {path.stat().st_size} bytes; a file of a tokenizer has less than {_LARGEST}."
                )
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
        with _told_of(source, paths):
            tokenizer = _tried(AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False))
    tokenizer.name_or_path = source.label
    return tokenizer


@contextmanager
def _told_of(source: Source, paths: Mapping[str, Path]) -> Iterator[None]:
    """Says of which tokenizer something has failed, in transformers or in the Rust code below it."""
    try:
        yield
    except LoadingError:
        raise
    except BaseException as error:
        if not is_failure(error):
            raise
        linked = [name for name in paths if name in source.links]
        # What transformers says may quote a file, and a link may lead to one that is none of a tokenizer's.
        said = f"its files {', '.join(linked)} are links to elsewhere, so no more is told" if linked else str(error)
        raise LoadingError(
            f"The tokenizer of {source.label} cannot be loaded: {type(error).__name__}: {said}\n"
            "  Give one with tokenizer=..., or remove its files to load the weights without."
        ) from (None if linked else error)


def _tried(tokenizer: Any) -> Any:
    """Returns a tokenizer that has been used once: what its files say wrongly is often noticed only then.

    Raises:
        TypeError: Something that every use needs is of the wrong type; other exceptions are the tokenizer's own.
    """
    for ids in tokenizer(["", "a"], truncation=True, max_length=8)["input_ids"]:
        tokenizer.decode(ids)
    own = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token, tokenizer.cls_token)
    strange = [token for token in own if not isinstance(token, (str, NoneType))]
    if strange:
        raise TypeError(f"a special token is a {type(strange[0]).__name__}, not text")
    if not isinstance(tokenizer.model_max_length, (int, float)):
        raise TypeError(f"its model_max_length is {tokenizer.model_max_length!r:.80}")
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


def _load_from_gguf(source: GGUFSource, trust_remote_code: bool) -> Any | None:
    """Returns the tokenizer inside a GGUF file. Its neighbours are not handed over: they say nothing of this file."""
    from transformers import AutoTokenizer

    from transformer_lens.loading.checkpoint.gguf_header import read_gguf_header

    path = source.path
    if "tokenizer.ggml.model" not in read_gguf_header(path).fields:
        return None
    try:
        with handed_over([path]) as folder:
            tokenizer = AutoTokenizer.from_pretrained(
                str(folder), gguf_file=path.name, local_files_only=True, trust_remote_code=trust_remote_code
            )
        tokenizer.name_or_path = source.label
        return _tried(tokenizer)
    except BaseException as error:
        if not is_failure(error):
            raise
        warnings.warn(
            f"The tokenizer inside {path.name} cannot be read by this transformers ({type(error).__name__}: {error}); "
            "the model has none. Give one with tokenizer=....",
            stacklevel=2,
        )
        return None
