"""Code that a checkpoint brings along: which file would run. It is named, never opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Fields that name code: a class of the repository's, a kernel of the hub.
_NAMES_CODE = ("auto_map", "attn_implementation", "experts_implementation", "custom_pipelines", "trust_remote_code")


def without_code(value: Any) -> Any:
    """Returns a parsed config without what names code, and without what transformers keeps for itself ("_…")."""
    if isinstance(value, Mapping):
        return {
            name: without_code(one)
            for name, one in value.items()
            if not (isinstance(name, str) and (name in _NAMES_CODE or name.startswith("_")))
        }
    return [without_code(one) for one in value] if isinstance(value, (list, tuple)) else value


def code_named(config: Mapping[str, Any], auto_class: str = "") -> str | None:
    """Returns the files that hold a checkpoint's own classes, in words, as ``auto_map`` names them; None without.

    An entry is "module.Class", "owner/repository--module.Class", or a list of such and nulls.

    Args:
        config: A parsed config.json or tokenizer_config.json.
        auto_class: The class of transformers whose entry is meant ("AutoTokenizer"); "" means every model's.
    """
    entries = config.get("auto_map")
    if isinstance(entries, Mapping):
        entries = [
            value
            for name, value in entries.items()
            if (name == auto_class if auto_class else str(name).startswith("AutoModel"))
        ]
    elif not auto_class:
        # Old tokenizer configs have the list itself.
        return None
    files: list[str] = []
    for entry in _flat(entries):
        repository, _, name = entry.rpartition("--")
        module = name.rpartition(".")[0]
        if module:
            file = module.lstrip(".").replace(".", "/") + ".py"
            files.append(f"{file[:80]} of {repository[:80]}" if repository else file[:80])
    return ", ".join(dict.fromkeys(files)) or None


def _flat(entries: Any) -> list[str]:
    if isinstance(entries, str):
        return [entries]
    return [one for entry in entries for one in _flat(entry)] if isinstance(entries, (list, tuple)) else []
