"""Checkpoints taken during training: which a model has, and where each is: a revision of the hub, or a file."""

from __future__ import annotations

import re
from dataclasses import dataclass

from transformer_lens.loading.errors import UnknownModelError
from transformer_lens.loading.sources.source import Source

STANFORD_STEPS: tuple[int, ...] = (
    *range(0, 100, 10),
    *range(100, 2000, 50),
    *range(2000, 20000, 100),
    *range(20000, 400001, 1000),
)
PYTHIA_STEPS: tuple[int, ...] = (0, *(2**power for power in range(10)), *range(1000, 143001, 1000))
PYTHIA_V0_STEPS: tuple[int, ...] = tuple(range(1000, 143001, 1000))


# Upstream's own models have a file a checkpoint, whose name ends in the label.
_FILE = re.compile(r"checkpoints/.*_(\d{1,18})\.pth")
# Labels above it count tokens, as upstream decides.
_MOST_STEPS = 10**9
_WITH_FILES = ("NeelNanda/", "ArthurConmy/", "Baidicoot/")


@dataclass(frozen=True)
class TrainingCheckpoint:
    """One checkpoint of a training run.

    Attributes:
        index: Its place in the run, from 0; None where that is not known.
        value: Its label.
        label_type: What that counts: "step" or "token".
        revision: The hub revision that holds it; None where a file does.
        file: The file that holds it; None where a revision does.
    """

    index: int | None
    value: int
    label_type: str = "step"
    revision: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class TrainingRun:
    """The checkpoints of a model.

    Attributes:
        labels: Of the checkpoints, ascending.
        label_type: What they count: "step" or "token".
        revision: Template of the revision of each; None where each is a file.
        files: The file of each, where each is one.
    """

    labels: tuple[int, ...]
    label_type: str = "step"
    revision: str | None = None
    files: tuple[str, ...] = ()

    def at(self, index: int) -> TrainingCheckpoint:
        """Returns a checkpoint by its place in the run."""
        value = self.labels[index]
        revision = None if self.revision is None else self.revision.format(step=value)
        return TrainingCheckpoint(index, value, self.label_type, revision, self.files[index] if self.files else None)


def training_run(official_name: str, source: Source) -> TrainingRun | None:
    """Returns the checkpoints saved for a model, or None where none are known.

    Args:
        official_name: The hub's name of the model, or the folder.
        source: Its files: those of upstream's own models are listed there.
    """
    if source.kind == "hub" and official_name.startswith("stanford-crfm/"):
        return TrainingRun(STANFORD_STEPS, revision="checkpoint-{step}")
    if source.kind == "hub" and official_name.startswith("EleutherAI/pythia"):
        is_v0 = official_name.endswith("-v0")
        return TrainingRun(PYTHIA_V0_STEPS if is_v0 else PYTHIA_STEPS, revision="step{step}")
    if source.kind == "hub" and not official_name.startswith(_WITH_FILES):
        return None
    files = {int(found.group(1)): name for name in source.names() if (found := _FILE.fullmatch(name)) is not None}
    labels = tuple(sorted(files))
    if not labels:
        return None
    counts = "token" if labels[-1] > _MOST_STEPS else "step"
    return TrainingRun(labels, counts, files=tuple(files[label] for label in labels))


def find_training_checkpoint(
    official_name: str, source: Source, index: int | None, value: int | None
) -> TrainingCheckpoint:
    """Finds a training checkpoint by its place or by its label.

    Args:
        official_name: The hub's name of the model, or the folder.
        source: Its files.
        index: Place in the run (negative counts from the end); exactly one of `index` and `value` is given.
        value: Label: a step, or a number of tokens.

    Raises:
        UnknownModelError: The model has no known checkpoints, or not this one.
        ValueError: Both or neither of `index` and `value` are given.
    """
    if (index is None) == (value is None):
        raise ValueError("Give exactly one of checkpoint_index and checkpoint_value.")
    run = training_run(official_name, source)
    if run is None:
        raise UnknownModelError(
            f"{official_name} has no list of training checkpoints here.\n"
            "  asked for: " + (f"checkpoint_index={index}" if value is None else f"checkpoint_value={value}") + "\n"
            "  listed are those of stanford-crfm/* and EleutherAI/pythia*, and files checkpoints/*_<label>.pth of a "
            "folder or of upstream's own models; another model's revision can be named with revision=..."
        )
    labels = run.labels
    if value is not None:
        if value not in labels:
            nearest = sorted(labels, key=lambda label: abs(label - value))[:3]
            raise UnknownModelError(
                f"{official_name} has no checkpoint at {run.label_type} {value}; the nearest are "
                f"{', '.join(map(str, nearest))}."
            )
        return run.at(labels.index(value))
    assert index is not None
    if not -len(labels) <= index < len(labels):
        raise UnknownModelError(
            f"{official_name} has {len(labels)} checkpoints; checkpoint_index={index} is not one of them."
        )
    return run.at(index % len(labels))
