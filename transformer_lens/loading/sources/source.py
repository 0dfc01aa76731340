"""A source: where the files of a checkpoint are, and how to have one of them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformer_lens.loading.errors import CorruptCheckpointError


class Source(ABC):
    """Files by name.

    Attributes:
        label: What messages call it.
        kind: "folder", "hub" or "gguf".
        revision: The hub's revision, if there is one.
    """

    label: str
    kind: str
    revision: str | None

    @abstractmethod
    def find(self, name: str) -> Path | None:
        """Returns the path of a file, or None where the source has none of this name; may download it."""

    def file(self, name: str) -> Path:
        """Returns the path of a file that has to be there.

        Raises:
            CorruptCheckpointError: It is not there.
        """
        path = self.find(name)
        if path is None:
            raise CorruptCheckpointError(
                f"{self.label} has no file {name!r}.\n  {self.listing()}\n"
                "  is the download complete? The folder that from_pretrained takes holds config.json and weights."
            )
        return path

    def for_transformers(self) -> tuple[str, dict[str, Any]]:
        """Returns the name and the keyword arguments by which transformers itself finds the same files."""
        return self.label, {}

    def listing(self) -> str:
        """Says what is there, as far as that is known without asking the network."""
        return "its files cannot be listed here"


@dataclass(frozen=True)
class FolderSource(Source):
    """A local folder. Nothing is asked of the network."""

    folder: Path
    label: str
    kind: str = "folder"
    revision: str | None = None

    def find(self, name: str) -> Path | None:
        """Returns the path of a file in the folder.

        Raises:
            CorruptCheckpointError: It is a link to a file outside the folder.
        """
        path = self.folder / name
        if path.is_symlink():
            _refuse_link_outside(path, self.folder)
        return path if path.is_file() else None

    def for_transformers(self) -> tuple[str, dict[str, Any]]:
        """Returns the folder."""
        return str(self.folder), {}

    def listing(self) -> str:
        """Lists the folder."""
        names = sorted(path.name for path in self.folder.iterdir())
        return f"it holds: {', '.join(names[:8]) or 'nothing'}" + (" …" if len(names) > 8 else "")


@dataclass(frozen=True)
class GGUFSource(Source):
    """One GGUF file, which holds config, weights and tokenizer."""

    path: Path
    label: str
    kind: str = "gguf"
    revision: str | None = None

    def find(self, name: str) -> Path | None:
        """Returns the path of the file itself."""
        return self.path if name == self.path.name else None


def _refuse_link_outside(path: Path, folder: Path) -> None:
    """Raises for a link that leaves its folder; a snapshot of the hub's cache links to the blobs beside it."""
    # Unlike Path.resolve, this does not raise for a link to itself.
    real, home = Path(os.path.realpath(path)), folder.resolve()
    allowed = [home, *(parent.parent / "blobs" for parent in (home, *home.parents) if parent.name == "snapshots")]
    if not any(place in real.parents for place in allowed):
        raise CorruptCheckpointError(
            f"{path} is a link to {real}, outside its folder. It was not opened.\n"
            "  If you trust it, put the file itself there, or give the folder that it is in."
        )
