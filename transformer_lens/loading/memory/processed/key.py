"""What an entry is for: everything that its numbers depend on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformer_lens.loading.versions import versions
from transformer_lens.loading.weights import Weights

# Raised whenever entries of before mean something else, or are to be made again.
FORMAT = 2


@dataclass(frozen=True)
class Key:
    """Names an entry, and says in which state of its sources it is right.

    Attributes:
        place: What was asked for, of which files, by which versions: another place is another entry.
        state: What the files were like: in another state the entry is stale.
    """

    place: Mapping[str, Any]
    state: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The entry's file, without its ending."""
        return digest_of(self.place)


def key_of(
    stored: Weights, files: Sequence[Path], config: Mapping[str, Any], steps: Sequence[str], norms: Sequence[str]
) -> Key:
    """Returns the key of a load.

    Args:
        stored: Promises of what the entry holds, after processing, dtype and placement: with names and shapes go the
            number of layers and, where positions are learned, the length of the context.
        files: All that the weights are made of, adapters and indices too.
        config: config.json as parsed.
        steps: Of processing, those that are done: a flag that is left out asks for nothing.
        norms: The norms that are folded.
    """
    known = versions()
    place = {
        "format": FORMAT,
        "versions": {name: known[name] for name in ("transformer_lens", "torch")},
        "files": [_name(path) for path in files],
        "steps": list(steps),
        "norms": list(norms),
        # A step is computed where the weights are; other devices round in another order.
        "devices": sorted({tensor.device.type for tensor in stored.values()}),
        "tensors": digest_of([[name, tensor.shape, str(tensor.dtype)] for name, tensor in stored.items()]),
    }
    return Key(place, state_of(files, config))


def state_of(files: Sequence[Path], config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what files are like now; a change of their numbers changes it."""
    return {"config.json": digest_of(config), **{"/".join(_name(path)): _state(path) for path in files}}


def digest_of(value: Any) -> str:
    """Returns a digest of plain values."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _blob(path: Path) -> Path | None:
    """Returns the blob that a file of the hub's cache is: it is named by its content. None for other files."""
    real = Path(os.path.realpath(path))
    return real if real.parent.name == "blobs" and real.parents[1].name.startswith("models--") else None


def _name(path: Path) -> list[str]:
    blob = _blob(path)
    if blob is None:
        return ["file", os.path.realpath(path)]
    parts = path.absolute().parts
    commit = parts[parts.index("snapshots") + 1] if "snapshots" in parts else ""
    return ["hub", blob.parents[1].name, commit, blob.name, path.name]


def _state(path: Path) -> list[int]:
    stat = path.stat()
    if _blob(path) is not None:
        return [stat.st_size, stat.st_mtime_ns]
    # The last is there for writers that put an older time stamp back.
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_ctime_ns]
