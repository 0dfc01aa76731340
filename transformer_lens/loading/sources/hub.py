"""The model hub: the only importer of huggingface_hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformer_lens.loading.errors import LoadingError, UnknownModelError
from transformer_lens.loading.sources.names import nearest
from transformer_lens.loading.sources.source import Source

# The packages, of one huggingface_hub or another, whose errors say that a connection failed.
_TRANSPORTS = ("httpx", "httpx2", "httpcore", "requests", "urllib3")


@dataclass(frozen=True)
class HubSource(Source):
    """A repository of the hub, through huggingface_hub's cache; files are fetched when they are asked for.

    Attributes:
        repo: The hub's name of the model.
        subfolder: Folder inside the repository.
        token: Access token; None takes the one of the environment.
        cache_dir: The cache's folder; None takes huggingface_hub's.
        local_files_only: Asks nothing of the network.
        silences: What could not be asked of the hub so far; after the first time only the cache is looked at, because
            every attempt takes half a minute to give up.
    """

    repo: str
    label: str
    revision: str | None = None
    subfolder: str | None = None
    token: str | bool | None = None
    cache_dir: str | None = None
    local_files_only: bool = False
    kind: str = "hub"
    silences: list[str] = field(default_factory=list, compare=False, repr=False)

    def find(self, name: str) -> Path | None:
        """Returns the path of a file in the cache, fetched if need be; None where the repository has none."""
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

    def for_transformers(self) -> tuple[str, dict[str, Any]]:
        """Returns the repository, its revision, and how it is reached."""
        where: dict[str, Any] = {"revision": self.revision or "main", "local_files_only": self.local_files_only}
        for name, value in (("subfolder", self.subfolder), ("token", self.token), ("cache_dir", self.cache_dir)):
            if value is not None:
                where[name] = value
        return self.repo, where

    def listing(self) -> str:
        """Says where to look."""
        return f"look at the list of files of {self.repo} on the hub"


def is_offline() -> bool:
    """Whether the environment forbids the network (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def download(
    repo: str,
    name: str,
    revision: str | None = None,
    subfolder: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | None = None,
    local_files_only: bool = False,
    silences: list[str] | None = None,
) -> Path | None:
    """Returns a file of a repository, from the cache or the hub; None where the repository has none of this name.

    Raises:
        UnknownModelError: There is no such repository or revision, or it may not be read.
        LoadingError: The hub could not be asked and the cache does not have the repository.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    where = name if subfolder is None else f"{subfolder}/{name}"
    known: dict[str, Any] = {"revision": revision}
    if cache_dir is not None:
        known["cache_dir"] = cache_dir
    try:
        cached = try_to_load_from_cache(repo, where, **known)
    except HFValidationError:
        raise UnknownModelError(
            f"{repo!r} is neither a folder nor a name that a model on the hub can have. {nearest(repo)} "
            "Is it a path? Then it does not exist from here."
        ) from None
    if isinstance(cached, str) and (local_files_only or is_offline()):
        return Path(cached)
    return _asked(
        repo,
        "config.json" if subfolder is None else f"{subfolder}/config.json",
        known,
        [] if silences is None else silences,
        lambda: hf_hub_download(
            repo, name, subfolder=subfolder, token=token, local_files_only=local_files_only, **known
        ),
    )


def _asked(
    repo: str, config_name: str, known: dict[str, Any], silences: list[str], call: Callable[[], str]
) -> Path | None:
    """Makes a call and says in our words what went wrong.

    Args:
        repo: The hub's name of the model.
        config_name: A file that is in the cache if any of the checkpoint is.
        known: Revision and cache.
        silences: Is added to when the hub does not answer.
        call: Fetches a file.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(call())
    except GatedRepoError:
        raise UnknownModelError(
            f"{repo} is gated: its terms must be accepted at https://huggingface.co/{repo} by the account whose token "
            "is used (token=..., or HF_TOKEN)."
        ) from None
    except RevisionNotFoundError:
        raise UnknownModelError(
            f"{repo} has no revision {known['revision']!r}; the hub's page lists its branches."
        ) from None
    except RepositoryNotFoundError:
        raise UnknownModelError(
            f"{repo!r} is neither a folder nor a model on the hub that this token may read. {nearest(repo)} "
            "Is it a path? Then it does not exist from here. A private repository needs token=... or HF_TOKEN."
        ) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        if isinstance(try_to_load_from_cache(repo, config_name, **known), str):
            silences.append(f"{type(error).__name__}: {error}")
            return None
        raise UnknownModelError(
            f"{repo!r} is no folder, it is not in the hub's cache, and the hub was not or could not be asked "
            f"({type(error).__name__}).\n  Fetch it once with the network: `hf download {repo}`. "
            f"Is it a path? Then it does not exist from here. {nearest(repo)}"
        ) from None
    except EntryNotFoundError:
        return None
    except HfHubHTTPError as error:
        raise LoadingError(f"The hub refused {repo}: {error}\n  Try again, or give the path of a folder.") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] in _TRANSPORTS:
            raise LoadingError(
                f"A download of {repo} broke off ({type(error).__name__}: {error}).\n"
                "  Nothing of that file is loaded. Run the same again, or `hf download "
                f"{repo}`: huggingface_hub goes on from what it has kept, or begins the file anew."
            ) from error
        if not isinstance(error, OSError):
            raise
        # No room on the disk, a proxy that refuses, a cache that may not be written to.
        raise LoadingError(
            f"A file of {repo} could not be brought into the hub's cache ({type(error).__name__}: {error}).\n"
            "  Is there room and permission (cache_dir=..., HF_HOME), and does the network let you through?"
        ) from error
