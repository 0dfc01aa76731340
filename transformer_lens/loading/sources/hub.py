"""The model hub: the only importer of huggingface_hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformer_lens.loading.errors import LoadingError, UnknownModelError
from transformer_lens.loading.sources.names import nearest, siblings

# The packages, of one huggingface_hub or another, whose errors say that a connection failed.
_TRANSPORTS = ("httpx", "httpx2", "httpcore", "requests", "urllib3")


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


def silence_of(repo: str, name: str, revision: str | None, subfolder: str | None) -> str | None:
    """Asks the hub once about a file, and returns why there is no answer; None where there is one, whatever it is.

    A download itself tries five times, and takes half a minute to give up.
    """
    from huggingface_hub import constants, get_session, hf_hub_url

    url = hf_hub_url(repo, name, subfolder=subfolder, revision=revision)
    try:
        # Releases before 1.0 try again in each of their own functions. Without a token a refusal is an answer too.
        get_session().head(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
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
