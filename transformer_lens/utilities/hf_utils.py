"""Datasets, and the odds and ends of the Hugging Face libraries."""

import inspect
import os
import shutil
from collections.abc import Callable
from typing import Any

from transformer_lens.utilities.left_out import refusing

CACHE_DIR = os.path.expanduser(
    os.environ.get("HF_HUB_CACHE")
    or os.environ.get("HUGGINGFACE_HUB_CACHE")
    or os.path.join(
        os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"), "hub"
    )
)
"""Where the Hugging Face libraries keep what they downloaded, unless told otherwise."""

DATASETS = {
    "openwebtext": "stas/openwebtext-10k",
    "owt": "stas/openwebtext-10k",
    "pile": "NeelNanda/pile-10k",
    "c4": "NeelNanda/c4-10k",
    "code": "NeelNanda/code-10k",
    "python": "NeelNanda/code-10k",
    "c4_code": "NeelNanda/c4-code-20k",
    "c4-code": "NeelNanda/c4-code-20k",
    "wiki": "NeelNanda/wiki-10k",
}
"""Small datasets by the names that `get_dataset` takes."""

HF_HUB_CACHE = CACHE_DIR


def get_dataset(dataset_name: str, **kwargs: Any) -> Any:
    """Loads the training split of a small dataset, of 10 000 to 20 000 texts, by its short name.

    Args:
        dataset_name: A key of `DATASETS`.
        **kwargs: Passed to ``datasets.load_dataset``.

    Raises:
        ValueError: The name is none of these.
    """
    if dataset_name not in DATASETS:
        raise ValueError(f"there is no dataset {dataset_name!r}; known are {', '.join(DATASETS)}")
    from datasets import load_dataset

    return load_dataset(DATASETS[dataset_name], split="train", **kwargs)


def keep_single_column(dataset: Any, col_name: str) -> Any:
    """Drops every column of a dataset but one."""
    return dataset.select_columns([col_name])


def select_compatible_kwargs(kwargs_dict: dict[str, Any], callable: Callable[..., Any]) -> dict[str, Any]:
    """Picks the entries that are named parameters of a function."""
    parameters = inspect.signature(callable).parameters
    return {name: value for name, value in kwargs_dict.items() if name in parameters}


def get_hf_token() -> str | None:
    """Returns the environment variable ``HF_TOKEN``; None where it is empty or not set."""
    return os.environ.get("HF_TOKEN") or None


def clear_huggingface_cache() -> None:
    """Deletes everything in `CACHE_DIR`, whoever downloaded it."""
    shutil.rmtree(CACHE_DIR, ignore_errors=True)


def get_rotary_pct_from_config(config: Any) -> float:
    """Returns the share of each head's dimensions that turn, of a transformers config; 1.0 where it does not say.

    Args:
        config: A config with ``rotary_pct`` or ``partial_rotary_factor``, its own or in its ``rope_parameters``.
    """
    fields = vars(config)
    for found in (fields, fields.get("rope_parameters") or {}):
        for name in ("rotary_pct", "partial_rotary_factor"):
            if found.get(name) is not None:
                return float(found[name])
    return 1.0


__getattr__ = refusing(__name__)
