"""``LoadReport``: what a load did, what it cost, and what other arguments would have saved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

from transformer_lens.loading.conversion.convert import collapse


@dataclass(frozen=True, repr=False)
class LoadReport:
    """The facts of one load. Bytes are bytes, times are seconds.

    ``print(report)`` shows all of them; its repr is a line.

    Attributes:
        label: The checkpoint: a folder, a hub name, a class.
        source: Where it was: "folder", "hub", "gguf", "live model".
        revision: The hub's revision, if there is one.
        architecture: The transformers class.
        load_mode: What was done: "assign" or "copy".
        requested_mode: What was asked for.
        reason: Why the mode was taken.
        dtype: Of the parameters.
        source_dtype: Of the checkpoint's embedding.
        device: Where the parameters are.
        bytes_mapped: Pages of files: no private memory until they are written to.
        bytes_borrowed: Memory of a live model that is shared.
        bytes_allocated: Memory made for this model.
        bytes_per_device: All three together, by device.
        largest_tensor: Bytes of the largest parameter.
        seconds: By stage.
        io: Whether files are mapped or read, and why; empty without files.
        memory: Kind of pages that results were made in, and how many threads made them; empty where none was.
        steps: Steps of processing that were done.
        skipped: (step, reason) of steps that were asked for and left out.
        read: Keys of the checkpoint that parameters were made of.
        zero_filled: Parameters that the checkpoint has nothing for.
        tied: (parameter, other parameter) that read one tensor of the checkpoint.
        dropped: Keys of the checkpoint that were not read, each with the reason.
        links: Files that are links out of their folder, each with the path that was read.
        savings: What other arguments would have saved, a sentence each.
        quantization: How packed weights are packed, in words; empty without any.
        packed: Parameters that are packed.
        bytes_packed: Of them, with their scales; part of the bytes above.
        dequantized: Parameters that are numbers though the checkpoint has them packed, each with the reason.
        processed_cache: "taken" where processed weights came from the cache of earlier loads, "kept" where they were
            put there ("to be kept" in a plan), "not kept" where they were not; empty where that was not asked for.
        processed_cache_file: The file of the cache, where there is one.
        processed_cache_reason: Why weights were not kept, or were made again.
        adapters: Names of the adapters in files that were merged.
        merged: Tensors of the checkpoint that adapters, in files or live, have changed, each with how.
        versions: Of torch, transformers (if imported) and transformer_lens.
    """

    label: str
    source: str
    revision: str | None
    architecture: str
    load_mode: str
    requested_mode: str
    reason: str
    dtype: str
    source_dtype: str
    device: str
    bytes_mapped: int
    bytes_borrowed: int
    bytes_allocated: int
    bytes_per_device: Mapping[str, int]
    largest_tensor: int
    seconds: Mapping[str, float]
    io: str = ""
    memory: str = ""
    steps: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    read: tuple[str, ...] = ()
    zero_filled: tuple[str, ...] = ()
    tied: tuple[tuple[str, str], ...] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)
    savings: tuple[str, ...] = ()
    processed_cache: str = ""
    processed_cache_file: str = ""
    processed_cache_reason: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    quantization: str = ""
    packed: tuple[str, ...] = ()
    bytes_packed: int = 0
    dequantized: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    adapters: tuple[str, ...] = ()
    merged: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the facts as plain values."""
        return asdict(self)

    def to_json(self, indent: int | None = None) -> str:
        """Returns the facts as JSON."""
        return json.dumps(self.to_dict(), indent=indent)

    @classmethod
    def from_json(cls, text: str) -> LoadReport:
        """Reads what `to_json` wrote."""
        values = json.loads(text)
        for name in ("steps", "read", "zero_filled", "savings", "packed", "adapters"):
            values[name] = tuple(values[name])
        for name in ("skipped", "tied"):
            values[name] = tuple((first, second) for first, second in values[name])
        return cls(**values)

    def __repr__(self) -> str:
        packed = f", packed as {self.quantization.partition(',')[0]}" if self.packed else ""
        return (
            f"<LoadReport of {shortened(self.label)} ({self.architecture}, {self.source}): {self.load_mode}, "
            f"{self.dtype} on {self.device}{packed}, mapped {gib(self.bytes_mapped)}, "
            f"borrowed {gib(self.bytes_borrowed)}, allocated {gib(self.bytes_allocated)}, "
            f"{sum(self.seconds.values()):.2f} s; print it for more>"
        )

    def _repr_html_(self) -> str:
        return as_html(repr(self), str(self))

    def __str__(self) -> str:
        revision = f", revision {self.revision}" if self.revision else ""
        lines = [
            f"{self.label} ({self.architecture}, {self.source}{revision})",
            f"  {self.load_mode}: {self.reason}",
            f"  {self.dtype} on {self.device}, checkpoint in {self.source_dtype}",
            f"  mapped {gib(self.bytes_mapped)}, borrowed {gib(self.bytes_borrowed)}, "
            f"allocated {gib(self.bytes_allocated)}, largest tensor {gib(self.largest_tensor)}",
            "  " + ", ".join(f"{stage} {time:.2f} s" for stage, time in self.seconds.items()),
        ]
        if self.io:
            lines.append(f"  files: {self.io}")
        if self.memory:
            lines.append(f"  memory: {self.memory}")
        lines += [f"  link: {name} is {path}" for name, path in self.links.items()]
        if self.processed_cache:
            said = [text for text in (self.processed_cache_file, self.processed_cache_reason) if text]
            lines.append(f"  processed weights {self.processed_cache}: {', '.join(said)}")
        if len(self.bytes_per_device) > 1:
            lines.append("  " + ", ".join(f"{device} {gib(size)}" for device, size in self.bytes_per_device.items()))
        if self.steps:
            lines.append(f"  done: {', '.join(self.steps)}")
        lines += [f"  left out: {step}: {reason}" for step, reason in self.skipped]
        lines += [f"  tied: {name} is {other}" for name, other in self.tied]
        if self.zero_filled:
            lines.append(f"  zero-filled: {', '.join(collapse(self.zero_filled))}")
        if self.dropped:
            lines.append(f"  not read: {', '.join(collapse(self.dropped))}")
        if self.packed:
            lines.append(f"  packed: {self.quantization}: {gib(self.bytes_packed)} in {len(self.packed)} matrices")
        for what in dict.fromkeys(self.merged.values()):
            names = [name for name, how in self.merged.items() if how == what]
            lines.append(f"  merged: {', '.join(collapse(names))}: {what}")
        for reason in dict.fromkeys(self.dequantized.values()):
            names = [name for name, why in self.dequantized.items() if why == reason]
            lines.append(f"  dequantized: {', '.join(collapse(names))}: {reason}")
        lines += [f"  could save: {sentence}" for sentence in self.savings]
        return "\n".join(lines)


def gib(nbytes: int) -> str:
    """Returns bytes for people."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if nbytes >= size:
            return f"{nbytes / size:.1f} {unit}"
    return f"{nbytes} B"


def shortened(text: str, width: int = 80) -> str:
    """Returns the first line of a text, cut in its middle to a width."""
    line = (text.splitlines() or [""])[0]
    return line if len(line) <= width else f"{line[: width // 2 - 1]}…{line[-width // 2 :]}"


def as_html(line: str, text: str) -> str:
    """Returns what a notebook shows: a line that unfolds to the text. Both are escaped: labels are anybody's words."""
    return f"<details><summary><code>{escape(line)}</code></summary><pre>{escape(text)}</pre></details>"
