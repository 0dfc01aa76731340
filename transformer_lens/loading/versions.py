"""Versions of what took part in a load, and what a version decides."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

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
