"""Files that are not whole: pointers to the real file, and what to say of a download that stopped."""

from __future__ import annotations

from pathlib import Path

from transformer_lens.loading.errors import CorruptCheckpointError

LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def refuse_lfs_pointer(path: Path, start: bytes) -> None:
    """Raises for a file that only points to the real one.

    Args:
        path: The file.
        start: Its first bytes, at least the whole of a pointer (about 130 bytes).

    Raises:
        CorruptCheckpointError: The file is a Git LFS pointer; the size that the real one has is named.
    """
    if not start.startswith(LFS_POINTER):
        return
    sizes = [line.split()[1].decode() for line in start.splitlines() if line.startswith(b"size ") and line.split()[1:]]
    expected = f" of {sizes[0]} bytes" if sizes else ""
    raise CorruptCheckpointError(
        f"{path} is a Git LFS pointer of {path.stat().st_size} bytes; the real file{expected} is not here.\n"
        "  Fetch it with `git lfs pull` in that folder, or download the repository again."
    )


def fetch_again(path: Path) -> str:
    """Returns the next step for a file that is not whole: the command that fetches it again."""
    for folder in path.absolute().parents:
        if folder.name.startswith("models--"):
            repository = folder.name.removeprefix("models--").replace("--", "/")
            inside = path.absolute().relative_to(folder).parts
            if inside[0] == "snapshots" and len(inside) > 2:
                return f"Fetch it again: `hf download {repository} {'/'.join(inside[2:])} --force-download`"
    return (
        f"Fetch it again: `hf download <repository> {path.name} --local-dir {path.absolute().parent} "
        "--force-download`, or copy it anew"
    )
