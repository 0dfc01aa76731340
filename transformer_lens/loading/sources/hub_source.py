"""A repository of the model hub as a source of files."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformer_lens.loading.errors import LoadingError
from transformer_lens.loading.sources.hub import (
    cached,
    download,
    exists,
    files_of,
    is_name,
    is_offline,
    remote_header,
    silence_of,
)
from transformer_lens.loading.sources.source import Source, names_in


@dataclass(frozen=True)
class HubSource(Source):
    """A repository of the hub, through huggingface_hub's cache; files are fetched when they are asked for.

    Attributes:
        repo: The hub's name of the model.
        subfolder: Folder inside the repository.
        token: Access token; None takes the one of the environment.
        cache_dir: The cache's folder; None takes huggingface_hub's.
        local_files_only: Asks nothing of the network.
        fetch: "all" files that are asked for; "rest": all but safetensors files, which have headers; "none" of the
            files of weights.
        silences: What could not be asked of the hub so far; after the first time only the cache is looked at, because
            every attempt takes half a minute to give up.
        met: The file that the hub was first asked about.
        headers: Headers that were read on the hub so far.
    """

    repo: str
    label: str
    revision: str | None = None
    subfolder: str | None = None
    token: str | bool | None = None
    cache_dir: str | None = None
    local_files_only: bool = False
    fetch: str = "all"
    kind: str = "hub"
    weights: str | None = None
    silences: list[str] = field(default_factory=list, compare=False, repr=False)
    met: list[str] = field(default_factory=list, compare=False, repr=False)
    headers: dict[str, dict[str, Any] | None] = field(default_factory=dict, compare=False, repr=False)

    def find(self, name: str) -> Path | None:
        """Returns the path of a file in the cache, fetched if need be; None where the repository has none."""
        if self.fetch != "all" and _holds_weights(name):
            path = cached(self.repo, name, self.revision, self.subfolder, self.cache_dir)
            if path is not None or self._stays_there(name):
                return path
        self._meet(name)
        return download(
            self.repo,
            name,
            self.revision,
            self.subfolder,
            self.token,
            self.cache_dir,
            self.local_files_only or bool(self.silences),
            self.silences,
        )

    def _meet(self, name: str) -> None:
        """Finds out whether the hub answers, before a file that is not here is asked for the first time."""
        if self.met or self._is_silent() or not is_name(self.repo):
            return
        if cached(self.repo, name, self.revision, self.subfolder, self.cache_dir) is not None:
            return
        self.met.append(name)
        silence = silence_of(self.repo, name, self.revision, self.subfolder)
        if silence is not None:
            self.silences.append(silence)
            logging.getLogger(__name__).warning(
                "The hub does not answer (%s): only its cache is looked at. HF_HUB_OFFLINE=1 asks nothing.", silence
            )

    def header(self, name: str) -> dict[str, Any] | None:
        """Returns the header of a safetensors file on the hub, by its first bytes.

        Raises:
            LoadingError: The hub does not give it.
        """
        if self.fetch == "all" or not name.endswith(".safetensors") or self._is_silent():
            return None
        if name not in self.headers:
            self.headers[name] = remote_header(self.repo, name, self.revision, self.subfolder, self.token)
        return self.headers[name]

    def _is_silent(self) -> bool:
        """Whether the hub is not asked."""
        return self.local_files_only or bool(self.silences) or is_offline()

    def _stays_there(self, name: str) -> bool:
        """Whether a file of weights that is not here is not fetched.

        Raises:
            LoadingError: It may not be fetched, and nothing can be known of it without.
        """
        if self._is_silent():
            return False
        if name.endswith(".safetensors"):
            if self.fetch == "none":
                return True
            try:
                self.header(name)
            except LoadingError:
                # The load itself fetches it, and says what is wrong.
                return False
            return True
        if self.fetch == "none" and exists(self.repo, name, self.revision, self.subfolder, self.token):
            raise LoadingError(
                f"{name} of {self.repo} is not in the cache, and the tensors of a .bin file are only known when all of "
                f"it is here: nothing was fetched.\n  Fetch it first (`hf download {self.repo} {name}`), or plan "
                "another checkpoint of the model that has safetensors files."
            )
        return self.fetch == "none"

    def for_transformers(self) -> tuple[str, dict[str, Any]]:
        """Returns the repository, its revision, and how it is reached."""
        where: dict[str, Any] = {"revision": self.revision or "main", "local_files_only": self.local_files_only}
        for name, value in (("subfolder", self.subfolder), ("token", self.token), ("cache_dir", self.cache_dir)):
            if value is not None:
                where[name] = value
        return self.repo, where

    def names(self) -> tuple[str, ...]:
        """Returns the names of the repository's files on the hub, or of those in the cache where it is not asked."""
        self._meet("config.json")
        if self._is_silent():
            config = cached(self.repo, "config.json", self.revision, self.subfolder, self.cache_dir)
            return () if config is None else names_in(config.parent)
        start = "" if self.subfolder is None else f"{self.subfolder}/"
        found = files_of(self.repo, self.revision, self.token, self.cache_dir)
        return tuple(sorted(name.removeprefix(start) for name in found if name.startswith(start)))

    def listing(self) -> str:
        """Says where to look."""
        return f"look at the list of files of {self.repo} on the hub"


def _holds_weights(name: str) -> bool:
    """Whether a file holds a model's weights, by its name; adapters are small."""
    return name.endswith((".safetensors", ".bin", ".pth")) and not name.startswith("adapter_")
