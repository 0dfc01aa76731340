"""A source: where the files of a checkpoint are, and how to have one of them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformer_lens.loading.errors import CorruptCheckpointError


class Source(ABC):
    """Files by name.

    Attributes:
        label: What messages call it.
        kind: "folder", "hub" or "gguf".
        revision: The hub's revision, if there is one.
        weights: The file of weights that is meant, one of several; None means those that a checkpoint has.
    """

    label: str
    kind: str
    revision: str | None
    weights: str | None

    @property
    def links(self) -> Mapping[str, str]:
        """Files found so far that are links out of their folder, each with the path that it leads to."""
        return {}

    @abstractmethod
    def find(self, name: str) -> Path | None:
        """Returns the path of a file, or None where the source has none of this name; may download it."""

    def header(self, name: str) -> dict[str, Any] | None:
        """Returns the parsed header of a safetensors file that `find` leaves where it is; None where there is none."""
        return None

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

    def names(self) -> tuple[str, ...]:
        """Returns the names of the files that are there, sorted, with the folder that they are in; may ask the hub."""
        return ()

    def listing(self) -> str:
        """Says what is there, as far as that is known without asking the network."""
        return "its files cannot be listed here"


def names_in(folder: Path) -> tuple[str, ...]:
    """Returns the names of the files in a folder and in its own folders, sorted."""
    inside = (*folder.glob("*"), *folder.glob("*/*"))
    return tuple(sorted(path.relative_to(folder).as_posix() for path in inside if path.is_file()))


@dataclass(frozen=True)
class FolderSource(Source):
    """A local folder. Nothing is asked of the network.

    A link is followed wherever it leads: whoever put it there can read the file it leads to. Not so in a folder that a
    repository's author has filled (a clone of it, or the hub's cache): there it may lead to the repository's own files
    only. ADR 11 tells why.

    Attributes:
        folder: Where the files are.
        root: The folder that was named, where `folder` is one inside it; None where they are the same.
        followed: Links out of the folder that were followed so far.
    """

    folder: Path
    label: str
    kind: str = "folder"
    revision: str | None = None
    weights: str | None = None
    root: Path | None = None
    followed: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def links(self) -> Mapping[str, str]:
        """Files found so far that are links out of the folder, each with the path that it leads to."""
        return self.followed

    def find(self, name: str) -> Path | None:
        """Returns the path of a file in the folder.

        Raises:
            CorruptCheckpointError: It is a link to nothing, or one that the author of a repository has put there.
        """
        path = self.folder / name
        if path.is_symlink():
            self._follow(path, name)
        return path if path.is_file() else None

    def _follow(self, path: Path, name: str) -> None:
        # Unlike Path.resolve, this does not raise for a link to itself.
        real = Path(os.path.realpath(path))
        if not path.exists():
            raise CorruptCheckpointError(
                f"{path} is a link to {real}, and there is nothing.\n"
                "  Was the file moved, or never fetched (git annex get, dvc pull)?"
            )
        home = (self.root or self.folder).resolve()
        if home in real.parents:
            return
        blobs = [
            parent.parent / "blobs"
            for parent in (home, *home.parents)
            if parent.name == "snapshots" and parent.parent.name.startswith("models--")
        ]
        if any(place in real.parents for place in blobs):
            return
        if blobs or (home / ".git").exists():
            raise CorruptCheckpointError(
                f"{path} is a link to {real}, outside its repository. It was not opened.\n"
                "  A file of a downloaded repository has no reason to lead there. If you trust it, put the file itself "
                "there, or give the folder that it is in."
            )
        self.followed[name] = str(real)

    def for_transformers(self) -> tuple[str, dict[str, Any]]:
        """Returns the folder."""
        return str(self.folder), {}

    def names(self) -> tuple[str, ...]:
        """Returns the names of the files in the folder and in its own folders."""
        return names_in(self.folder)

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
    weights: str | None = None

    def find(self, name: str) -> Path | None:
        """Returns the path of the file itself."""
        return self.path if name == self.path.name else None
