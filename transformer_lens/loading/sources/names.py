"""Names of models: aliases, and what to say of a name that means nothing."""

from __future__ import annotations

import difflib
import itertools
from pathlib import Path

from transformer_lens.loading.errors import UnknownModelError
from transformer_lens.loading.sources.model_names import MODEL_ALIASES, OFFICIAL_MODEL_NAMES

NON_HF_HOSTED_MODEL_NAMES: list[str] = ["llama-7b-hf", "llama-13b-hf", "llama-30b-hf", "llama-65b-hf"]
NEED_REMOTE_CODE_MODELS: tuple[str, ...] = ("bigcode/santacoder", "Qwen/Qwen-")
_MOST_ENTRIES = 10_000
DEFAULT_MODEL_ALIASES: list[str] = [MODEL_ALIASES.get(name, [name])[0] for name in OFFICIAL_MODEL_NAMES]


def make_model_alias_map() -> dict[str, str]:
    """Returns the official name of every alias and of every official name, keys in lower case."""
    out: dict[str, str] = {}
    for official in OFFICIAL_MODEL_NAMES:
        for alias in MODEL_ALIASES.get(official, []):
            out[alias.lower()] = official
        out[official.lower()] = official
    return out


def get_official_model_name(model_name: str) -> str:
    """Returns the hub's name of a listed model or alias.

    Raises:
        UnknownModelError: The name is not listed; the three nearest are named.
    """
    official = make_model_alias_map().get(model_name.lower())
    if official is None:
        raise UnknownModelError(f"{model_name!r} is no listed model. {nearest(model_name)}")
    return official


def siblings(path: Path) -> str:
    """Says what stands beside a path that does not exist and is spelled much like it; nothing where nothing is."""
    name, folder = path.name, path.parent
    try:
        names = [entry.name for entry in itertools.islice(folder.iterdir(), _MOST_ENTRIES)] if folder.is_dir() else []
    except OSError:
        names = []
    if not names and not folder.is_dir() and folder != folder.parent:
        return siblings(folder)
    by_lower = {entry.lower(): entry for entry in names}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)
    return f"Beside it there is {', '.join(repr(str(folder / by_lower[entry])) for entry in close)}." if close else ""


def hub_name(model_name: str) -> str:
    """Returns the hub's name of an alias, and any other name as it is."""
    return make_model_alias_map().get(model_name.lower(), model_name)


def nearest(model_name: str) -> str:
    """Says which three known names are the nearest; of a known name, nothing."""
    known = make_model_alias_map()
    if model_name in known.values() or model_name.lower() in known:
        return ""
    close = difflib.get_close_matches(model_name.lower(), list(known), n=12, cutoff=0.0)
    names = list(dict.fromkeys(known[name] for name in close))[:3]
    return f"The nearest names are {', '.join(names)}."
