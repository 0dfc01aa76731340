"""safetensors: the header is checked before it is used, then every tensor is a region of the file.

Rules of a header, each with a message of its own: it fits the file, is JSON, names known dtypes, has shapes that make
its offsets, and its tensors follow each other from the first byte behind it to the last of the file.
Source: the format's specification in the safetensors repository.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from transformer_lens.loading.checkpoint.regions import Region
from transformer_lens.loading.errors import CorruptCheckpointError
from transformer_lens.loading.sources.json_files import parse_object
from transformer_lens.loading.sources.whole_files import fetch_again, refuse_lfs_pointer
from transformer_lens.loading.weights import element_size

# The format allows 100 MB; that of a hundred thousand tensors has ten.
_LARGEST_HEADER = 16 << 20
_LARGEST_NUMEL = 1 << 48
_MOST_AXES = 64
_DTYPES: dict[str, str] = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "U16": "uint16", "U32": "uint32", "U64": "uint64",
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What the header of a file says, checked.

    Attributes:
        regions: The tensors, in the order of the file.
        metadata: The strings that whoever wrote the file has put beside them.
        text: The header as it stands in the file.
    """

    regions: Mapping[str, Region]
    metadata: Mapping[str, str]
    text: bytes


def read_header(path: Path) -> dict[str, Region]:
    """Returns the tensors of a file, in the order of the file.

    Raises:
        CorruptCheckpointError: The file is not whole, or its header says what cannot be.
    """
    return dict(read_whole_header(path).regions)


def read_whole_header(path: Path) -> Header:
    """Returns the tensors of a file, its metadata, and the header's own text.

    Raises:
        CorruptCheckpointError: The file is not whole, or its header says what cannot be.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(200)
        refuse_lfs_pointer(path, start)
        if size < 8:
            raise _broken(
                path,
                f"has {size} bytes; a safetensors file starts with 8 that say how long its header is: {_stopped(path)}",
            )
        (length,) = struct.unpack("<Q", start[:8])
        if length > _LARGEST_HEADER:
            raise _broken(
                path, f"says that its header has more than {_LARGEST_HEADER} bytes: is it a safetensors file?"
            )
        if 8 + length > size:
            raise _broken(path, f"has {size} bytes, its header alone needs {8 + length}: {_stopped(path)}")
        file.seek(8)
        text = file.read(length)
    try:
        header = parse_object(text)
    except ValueError as fact:
        raise _broken(path, f"has a header that cannot be read as a JSON object ({fact})") from None
    metadata = header.get("__metadata__", {})
    return Header(regions_of(path, header, 8 + length, size), metadata, text)


def regions_of(path: Path, header: dict[str, Any], begin: int = 0, size: int | None = None) -> dict[str, Region]:
    """Returns the tensors that a header describes, in the order of the file.

    Args:
        path: The file.
        header: As parsed.
        begin: Where in the file the first tensor is.
        size: Of the file; None where the file is not here.

    Raises:
        CorruptCheckpointError: The header says what cannot be.
    """
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _broken(path, "has metadata that is not a dict of strings")
    entries = sorted(
        ((name, *_entry(path, name, entry)) for name, entry in header.items()), key=lambda item: (item[3], item[4])
    )
    out: dict[str, Region] = {}
    end = 0
    for name, dtype, shape, first, last in entries:
        if first != end:
            what = "overlaps the tensor before it" if first < end else f"leaves {first - end} bytes before it unused"
            raise _broken(path, f"has a tensor {name!r} that {what}")
        out[name] = Region(path, begin + first, shape, dtype, size or 0)
        end = last
    if size is None:
        return out
    if begin + end > size:
        raise _broken(path, f"has {size} bytes of the {begin + end} that its header says: {_stopped(path)}")
    if begin + end < size:
        raise _broken(path, f"has {size} bytes, {size - begin - end} more than its header says")
    return out


def _entry(path: Path, name: str, entry: Any) -> tuple[torch.dtype, tuple[int, ...], int, int]:
    """Returns dtype, shape, begin and end of one tensor, checked against each other."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _broken(path, f"describes {name!r} by something else than dtype, shape and data_offsets")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in _DTYPES:
        raise _broken(path, f"says that {name!r} has the dtype {str(entry['dtype'])[:80]!r}, which is not known")
    dtype = torch.__dict__.get(_DTYPES[entry["dtype"]])
    if dtype is None:
        raise _broken(path, f"holds {name!r} in {entry['dtype']}, which this torch ({torch.__version__}) does not have")
    if not _whole_numbers(shape):
        raise _broken(path, f"says that {name!r} has the shape {str(shape)[:200]}")
    if not _whole_numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _broken(path, f"says that {name!r} lies at {str(offsets)[:200]}")
    if len(shape) > _MOST_AXES:
        raise _broken(path, f"says that {name!r} has {len(shape)} axes")
    numel = 1
    for size in shape:
        numel *= size
        if numel > _LARGEST_NUMEL:
            raise _broken(path, f"says that {name!r} has the shape {tuple(shape)}, more than any machine holds")
    nbytes = numel * element_size(dtype)
    if nbytes != offsets[1] - offsets[0]:
        raise _broken(
            path,
            f"gives {name!r} {offsets[1] - offsets[0]} bytes; {tuple(shape)} in {entry['dtype']} needs {nbytes}",
        )
    return dtype, tuple(shape), offsets[0], offsets[1]


def name_of_dtype(dtype: torch.dtype) -> str:
    """Returns what the format calls a dtype."""
    return next(name for name, ours in _DTYPES.items() if f"torch.{ours}" == str(dtype))


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in value
    )


def _stopped(path: Path) -> str:
    return f"a download that stopped?\n  {fetch_again(path)}"


def _broken(path: Path, what: str) -> CorruptCheckpointError:
    return CorruptCheckpointError(f"{path} {what}.")
