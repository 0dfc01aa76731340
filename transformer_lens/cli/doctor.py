"""``transformer-lens doctor``: what is installed, what that makes possible, and how fast this machine can be."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from json import dumps
from typing import Annotated, Any

import torch
import typer

from transformer_lens.cli.options import JSON, in_flags
from transformer_lens.loading.checkpoint.io import choose_io, file_system_of
from transformer_lens.loading.loaders import can_assign
from transformer_lens.loading.memory.available import available_memory, group_limit, group_room
from transformer_lens.loading.memory.rates import measure_rates
from transformer_lens.loading.report import gib
from transformer_lens.loading.sources.hub import cache_folder, is_offline

# What each package is for; looked up by metadata, not imported.
_PACKAGES = (
    "transformer-lens", "torch", "transformers", "safetensors", "huggingface_hub", "accelerate", "tokenizers",
    "bitsandbytes", "gguf", "peft",
)  # fmt: skip


@dataclass(frozen=True)
class Ability:
    """Something that a library makes possible.

    Attributes:
        name: What.
        there: Whether it can be done here.
        because: Why, or what to install.
    """

    name: str
    there: bool
    because: str


def doctor(
    json: JSON = False,
    mib: Annotated[int, typer.Option(help="MiB of memory, and of a file, to measure rates with.", min=1)] = 256,
) -> None:
    """Say what is installed and what it makes possible, what memory there is, and this machine's own limits."""
    found = examine(mib << 20)
    typer.echo(dumps(found, indent=2) if json else in_flags(_as_text(found)))


def examine(nbytes: int) -> dict[str, Any]:
    """Returns everything that the command says.

    Args:
        nbytes: To measure rates with.
    """
    cache = cache_folder()
    versions = {name: _version(name) for name in _PACKAGES}
    io = choose_io("auto", cache)
    return {
        "versions": {"python": platform.python_version(), **versions},
        "platform": platform.platform(),
        "cpus": {"there": os.cpu_count(), "usable": _usable_cpus(), "torch_threads": torch.get_num_threads()},
        "abilities": [asdict(ability) for ability in _abilities(versions)],
        "gpus": [asdict(gpu) for gpu in _gpus()],
        "memory": {
            "available": available_memory(),
            "control_group_limit": group_limit(),
            "control_group_room": group_room(),
        },
        "hub_cache": {
            "folder": str(cache),
            "file_system": file_system_of(cache),
            "io": io.mode,
            "reason": io.reason,
            "offline": is_offline(),
        },
        "rates": measure_rates(nbytes, cache if cache.is_dir() else None).as_dict(),
    }


@dataclass(frozen=True)
class GPU:
    """A GPU.

    Attributes:
        device: Name for `device=`.
        name: What it calls itself.
        total: Bytes of its memory.
        available: Bytes that can be had.
    """

    device: str
    name: str
    total: int
    available: int


def _gpus() -> list[GPU]:
    if not torch.cuda.is_available():
        return []
    out = []
    for index in range(torch.cuda.device_count()):
        available, total = torch.cuda.mem_get_info(index)
        out.append(GPU(f"cuda:{index}", torch.cuda.get_device_name(index), total, available))
    return out


def _abilities(versions: dict[str, str | None]) -> list[Ability]:
    """Returns what can be done, with the reason; the rules are those of the code that does it."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    bits = versions["bitsandbytes"]
    return [
        Ability(
            "parameters that are mapped or borrowed (load_mode='assign')",
            can_assign(),
            "torch has load_state_dict(assign=True)" if can_assign() else "takes torch 2.1 or later",
        ),
        Ability("CUDA", cuda, f"CUDA {torch.version.cuda}" if cuda else "this torch sees no CUDA device"),
        Ability("MPS", mps, "Apple's GPU is there" if mps else "this torch sees no MPS device"),
        _package(
            f"tokenizers and hf_model=, of transformers' generation {(versions['transformers'] or '?').split('.')[0]}",
            "transformers",
            versions["transformers"],
        ),
        _package("GGUF files with packed numbers", "gguf", versions["gguf"]),
        _package("a live PeftModel (hf_model=); adapter= needs no package", "peft", versions["peft"]),
        _package("4-bit and 8-bit weights on the CPU", "bitsandbytes", bits),
        Ability(
            "4-bit and 8-bit weights on CUDA",
            cuda and bits is not None,
            f"bitsandbytes {bits}" + ("" if cuda else ", and no CUDA device") if bits else "pip install bitsandbytes",
        ),
    ]


def _package(name: str, package: str, version: str | None) -> Ability:
    return Ability(name, version is not None, f"{package} {version}" if version else f"pip install {package}")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _as_text(found: dict[str, Any]) -> str:
    memory, cache, rates, cpus = found["memory"], found["hub_cache"], found["rates"], found["cpus"]
    limit = memory["control_group_limit"]
    versions = ", ".join(f"{name} {version or '(not installed)'}" for name, version in found["versions"].items())
    lines = [
        versions,
        f"{found['platform']}, {cpus['usable']} of {cpus['there']} CPUs, torch uses {cpus['torch_threads']} threads",
        "can be done:",
        *(f"  {'yes' if one['there'] else 'no ':3} {one['name']}: {one['because']}" for one in found["abilities"]),
        "memory:",
        f"  {_known(memory['available'])} of main memory can be had; "
        + ("no limit by a control group" if limit is None else f"the control group's limit is {gib(limit)}"),
        *(
            f"  {gpu['device']} ({gpu['name']}): {gib(gpu['available'])} of {gib(gpu['total'])} can be had"
            for gpu in found["gpus"]
        ),
        f"cache of the hub: {cache['folder']} ({cache['file_system'] or 'file system not known'})"
        + (", offline" if cache["offline"] else ""),
        f"  io='auto' takes {cache['io']}: {cache['reason']}",
        f"this machine's limits, on one thread, with {gib(rates['nbytes'])}:",
        f"  first touch of new memory   {_rate(rates['first_touch'])}",
        f"  copy into touched memory    {_rate(rates['copy'])}",
        f"  copy into new memory        {_rate(rates['clone'])}   {{k: v.clone()}}; a processed load at best",
        f"  map a cached file, read it  {_rate(rates['map_file'])}   in {rates['folder']}",
    ]
    return "\n".join(lines)


def _known(nbytes: int | None) -> str:
    return "it is not known how much" if nbytes is None else gib(nbytes)


def _rate(bytes_a_second: float) -> str:
    return f"{bytes_a_second / (1 << 30):6.2f} GiB/s"
