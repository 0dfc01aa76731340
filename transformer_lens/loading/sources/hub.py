"""The model hub: the only importer of huggingface_hub."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformer_lens.loading.errors import LoadingError, UnknownModelError
from transformer_lens.loading.sources.names import nearest, siblings
from transformer_lens.loading.sources.source import Source, names_in

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
        silence = silence_of(self.repo, name, self.revision, self.subfolder, self.token)
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


def is_name(repo: str) -> bool:
    """Whether a repository can have this name."""
    from huggingface_hub.errors import HFValidationError

    try:
        cached(repo, "config.json", None, None, None)
    except HFValidationError:
        return False
    return True


def is_offline() -> bool:
    """Whether the environment forbids the network (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def cached(repo: str, name: str, revision: str | None, subfolder: str | None, cache_dir: str | None) -> Path | None:
    """Returns the path of a file in the cache; None where it is not there."""
    from huggingface_hub import try_to_load_from_cache

    where = name if subfolder is None else f"{subfolder}/{name}"
    found = try_to_load_from_cache(
        repo, where, revision=revision, **({} if cache_dir is None else {"cache_dir": cache_dir})
    )
    return Path(found) if isinstance(found, str) else None


def exists(repo: str, name: str, revision: str | None, subfolder: str | None, token: str | bool | None) -> bool:
    """Asks the hub whether a repository has a file."""
    from huggingface_hub import HfApi

    where = name if subfolder is None else f"{subfolder}/{name}"
    return bool(HfApi().file_exists(repo, where, revision=revision, token=token))


def files_of(repo: str, revision: str | None, token: str | bool | None, cache_dir: str | None) -> list[str]:
    """Asks the hub for the names of a repository's files."""
    from huggingface_hub import HfApi

    known: dict[str, Any] = {"revision": revision, **({} if cache_dir is None else {"cache_dir": cache_dir})}
    found: list[str] = []

    def ask() -> str:
        found.extend(HfApi().list_repo_files(repo, revision=revision, token=token))
        return repo

    _asked(repo, "config.json", known, [], ask)
    return found


def remote_header(
    repo: str, name: str, revision: str | None, subfolder: str | None, token: str | bool | None
) -> dict[str, Any] | None:
    """Returns the header of a safetensors file on the hub; None where there is no such file.

    Raises:
        LoadingError: The hub does not give the first bytes of the file.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, SafetensorsParsingError

    where = name if subfolder is None else f"{subfolder}/{name}"
    try:
        found = HfApi().parse_safetensors_file_metadata(repo, where, revision=revision, token=token)
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, SafetensorsParsingError, OSError) as error:
        raise LoadingError(
            f"The header of {where} of {repo} cannot be had without the file ({type(error).__name__}: {error}).\n"
            f"  Fetch it first: `hf download {repo} {where}`."
        ) from error
    return {
        key: {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": list(tensor.data_offsets)}
        for key, tensor in found.tensors.items()
    }


def cache_folder() -> Path:
    """Returns the folder in which huggingface_hub keeps what it fetches."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


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
            f"{repo!r} is neither a folder nor a name that a model on the hub can have. "
            f"Is it a path? Then it does not exist from here. {siblings(Path(repo)) or nearest(repo)}".rstrip()
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


def download_file(repo: str, name: str, subfolder: str | None, cache_dir: str | None, **how: Any) -> Path:
    """Returns one file of a repository, which may be of any kind.

    Args:
        repo: Owner and name.
        name: Of the file.
        subfolder: Its folder in the repository.
        cache_dir: The cache's folder; None takes huggingface_hub's.
        **how: Other arguments of ``huggingface_hub.hf_hub_download``.

    Raises:
        UnknownModelError: There is no such repository or revision, or it may not be read.
        LoadingError: There is no such file, or the hub could not be asked.
    """
    from huggingface_hub import hf_hub_download

    known: dict[str, Any] = {"revision": how.pop("revision", None), "repo_type": how.pop("repo_type", None)}
    if cache_dir is not None:
        known["cache_dir"] = cache_dir
    where = name if subfolder is None else f"{subfolder}/{name}"
    found = _asked(repo, where, known, [], lambda: hf_hub_download(repo, name, subfolder=subfolder, **how, **known))
    if found is None:
        raise LoadingError(f"{repo} has no file {where!r}.\n  Look at the list of its files on the hub.")
    return found


def silence_of(
    repo: str, name: str, revision: str | None, subfolder: str | None, token: str | bool | None
) -> str | None:
    """Asks the hub once about a file, and returns why there is no answer; None where there is one, whatever it is.

    A download itself tries five times, and takes half a minute to give up.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        get_hf_file_metadata(hf_hub_url(repo, name, subfolder=subfolder, revision=revision), token=token)
    except Exception as error:
        # What the hub answered, in whatever words, is told by the download.
        if type(error).__module__.partition(".")[0] in _TRANSPORTS:
            return f"{type(error).__name__}: {error}"
    return None


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
            f"Is it a path? Then it does not exist from here. {siblings(Path(repo))} A private repository needs "
            "token=... or HF_TOKEN."
        ) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        if isinstance(try_to_load_from_cache(repo, config_name, **known), str):
            silences.append(f"{type(error).__name__}: {error}")
            return None
        raise UnknownModelError(
            f"{repo!r} is no folder, it is not in the hub's cache, and the hub was not or could not be asked "
            f"({silences[-1] if silences else type(error).__name__}).\n"
            f"  Fetch it once with the network: `hf download {repo}`; without one, HF_HUB_OFFLINE=1 asks nothing. "
            f"Is it a path? Then it does not exist from here. {siblings(Path(repo)) or nearest(repo)}".rstrip()
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


def upload(
    folder: Path,
    repo: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    message: str = "Upload a HookedTransformer",
) -> str:
    """Uploads a folder to a repository, which is made where it is not there, and returns the commit's address.

    Args:
        folder: What is uploaded.
        repo: Owner and name.
        private: Whether a new repository is private; None takes the hub's default.
        token: Access token with the right to write.
        revision: Branch to commit to; None takes the main one.
        message: Of the commit.

    Raises:
        LoadingError: This process is offline.
    """
    from huggingface_hub import HfApi

    if is_offline():
        raise LoadingError(f"{repo} cannot be written to offline (HF_HUB_OFFLINE): save_pretrained writes a folder.")
    api = HfApi(token=token)
    name = api.create_repo(repo, private=private, exist_ok=True).repo_id
    return str(api.upload_folder(repo_id=name, folder_path=str(folder), revision=revision, commit_message=message))
