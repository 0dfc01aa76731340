"""Which checkpoint a name means."""

from __future__ import annotations

from pathlib import Path

from transformer_lens.loading.errors import UnknownModelError
from transformer_lens.loading.sources.hub_source import HubSource
from transformer_lens.loading.sources.names import NON_HF_HOSTED_MODEL_NAMES, hub_name, nearest, siblings
from transformer_lens.loading.sources.source import FolderSource, GGUFSource, Source


def resolve(
    model_name: str,
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | None = None,
    local_files_only: bool = False,
    fetch: str = "all",
) -> Source:
    """Returns where a name's files are: a folder, a GGUF file, or a repository of the hub.

    What exists on the disk is meant; nothing is asked of the network for it. `fetch` says what of a repository may be
    fetched: "all", the "rest" of what has no header to be read where it is, or "none" of the files of weights.

    Raises:
        UnknownModelError: The name is a path that does not exist, or a file that is no checkpoint.
    """
    if not model_name:
        raise UnknownModelError(
            "The name of the model is empty: give a folder ('.' is this one), a hub id, or an alias."
        )
    try:
        path = Path(model_name).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
        folder = path if subfolder is None else path / subfolder
        holds_folder = folder.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        raise UnknownModelError(f"{model_name[:80]!r} can be neither a path nor a name: {error!s:.200}.") from None
    if is_folder:
        if not holds_folder:
            raise UnknownModelError(f"{path} has no folder {subfolder!r}. {siblings(folder)}".rstrip())
        label = str(model_name) if subfolder is None else f"{model_name}/{subfolder}"
        return FolderSource(folder, label, root=path)
    if is_file:
        if path.suffix == ".gguf":
            return GGUFSource(path, str(model_name))
        raise UnknownModelError(
            f"{model_name} is a file. A checkpoint is a folder with config.json and weights"
            + (f": give {str(path.parent)!r}." if (path.parent / "config.json").is_file() else ", or a .gguf file.")
        )
    if _looks_like_a_path(model_name):
        raise UnknownModelError(
            f"{model_name!r} looks like a path, and there is nothing there (seen from {Path.cwd()}).\n"
            f"  {siblings(path) or nearest(model_name)}".rstrip()
        )
    if model_name in NON_HF_HOSTED_MODEL_NAMES:
        raise UnknownModelError(
            f"{model_name} is not hosted on the hub: give the folder that holds its weights, or hf_model=."
        )
    return HubSource(
        hub_name(model_name), hub_name(model_name), revision, subfolder, token, cache_dir, local_files_only, fetch
    )


def resolve_tokenizer(tokenizer_name: str) -> Source:
    """Returns where the tokenizer is that a config names.

    Raises:
        UnknownModelError: It is not there; the message also says what of the config is meant.
    """
    try:
        return resolve(tokenizer_name)
    except UnknownModelError as error:
        raise UnknownModelError(
            f"The tokenizer that the config names (cfg.tokenizer_name) is not found: {error.args[0]}\n"
            "  Give one with tokenizer=..., or set cfg.tokenizer_name = None for a model without."
        ) from None


def named_tokenizer(name: str, beside: Source) -> Source:
    """Returns the repository that the config of a checkpoint names for its tokenizer, reached as the checkpoint is.

    A name is a repository's, never a path: a stranger has written it. For a folder only the hub's cache is looked at.
    """
    if isinstance(beside, HubSource):
        return HubSource(
            name, name, token=beside.token, cache_dir=beside.cache_dir, local_files_only=beside.local_files_only
        )
    return HubSource(name, name, local_files_only=True)


def _looks_like_a_path(name: str) -> bool:
    return (
        name.startswith((".", "~", "/", "\\"))
        or name.count("/") > 1
        or "\\" in name
        or name.endswith((".gguf", ".safetensors", ".bin", ".pt", ".pth"))
        or Path(name).is_absolute()
    )
