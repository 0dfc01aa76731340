"""Versions of what took part in a load, and what a version decides."""

from __future__ import annotations

import inspect
import platform
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

import torch
from packaging.version import Version


def versions() -> dict[str, str]:
    """Returns the versions of python, torch, this package, and transformers where it has been imported."""
    out = {"python": platform.python_version(), "torch": str(torch.__version__)}
    try:
        out["transformer_lens"] = metadata.version("transformer-lens")
    except metadata.PackageNotFoundError:
        out["transformer_lens"] = "source tree"
    if "transformers" in sys.modules:
        out["transformers"] = metadata.version("transformers")
    return out


def dtype_argument() -> str:
    """Returns what this transformers calls the dtype in its ``from_pretrained``: release 4.56 renamed it."""
    return "dtype" if Version(metadata.version("transformers")) >= Version("4.56") else "torch_dtype"


def cache_argument(forward: Callable[..., Any]) -> str:
    """Returns what a transformers model calls its key-value cache, as an argument and as a field of its output.

    Release 5.24 renamed ``past_key_values`` to ``cache``, warns of the old name, and drops it in 5.40. A model that is
    not of transformers itself may keep the old name longer, so that its own signature is read.

    Args:
        forward: The model's ``forward``.

    Raises:
        ValueError: It takes no key-value cache.
    """
    known = ("cache", "past_key_values")
    parameters = inspect.signature(forward).parameters
    for name in known:
        if name in parameters:
            return name
    raise ValueError(f"a forward pass that takes {', '.join(parameters)} has no key-value cache ({' or '.join(known)})")
