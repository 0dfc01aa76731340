"""Checkpoints taken during training: which a model has, and the hub revision of each."""

from __future__ import annotations

from dataclasses import dataclass

from transformer_lens.loading.errors import UnknownModelError

STANFORD_STEPS: tuple[int, ...] = (
    *range(0, 100, 10),
    *range(100, 2000, 50),
    *range(2000, 20000, 100),
    *range(20000, 400001, 1000),
)
PYTHIA_STEPS: tuple[int, ...] = (0, *(2**power for power in range(10)), *range(1000, 143001, 1000))
PYTHIA_V0_STEPS: tuple[int, ...] = tuple(range(1000, 143001, 1000))


@dataclass(frozen=True)
class TrainingCheckpoint:
    """One checkpoint of a training run.

    Attributes:
        index: Its place in the run, from 0.
        value: Its step.
        revision: The hub revision that holds it.
    """

    index: int
    value: int
    revision: str


def training_steps(official_name: str) -> tuple[tuple[int, ...], str] | None:
    """Returns the steps saved for a model and the template of their revisions, or None where none are known."""
    if official_name.startswith("stanford-crfm/"):
        return STANFORD_STEPS, "checkpoint-{step}"
    if official_name.startswith("EleutherAI/pythia"):
        return (PYTHIA_V0_STEPS if official_name.endswith("-v0") else PYTHIA_STEPS), "step{step}"
    return None


def find_training_checkpoint(official_name: str, index: int | None, value: int | None) -> TrainingCheckpoint:
    """Finds a training checkpoint by its place or by its step.

    Args:
        official_name: The hub's name of the model.
        index: Place in the run (negative counts from the end); exactly one of `index` and `value` is given.
        value: Step.

    Raises:
        UnknownModelError: The model has no known checkpoints, or not this one.
        ValueError: Both or neither of `index` and `value` are given.
    """
    if (index is None) == (value is None):
        raise ValueError("Give exactly one of checkpoint_index and checkpoint_value.")
    known = training_steps(official_name)
    if known is None:
        raise UnknownModelError(
            f"{official_name} has no list of training checkpoints here.\n"
            "  asked for: " + (f"checkpoint_index={index}" if value is None else f"checkpoint_value={value}") + "\n"
            "  listed are those of stanford-crfm/* and EleutherAI/pythia*; "
            "another model's revision can be named with revision=..."
        )
    steps, template = known
    if value is not None:
        if value not in steps:
            nearest = sorted(steps, key=lambda step: abs(step - value))[:3]
            raise UnknownModelError(
                f"{official_name} has no checkpoint at step {value}; the nearest are {', '.join(map(str, nearest))}."
            )
        position = steps.index(value)
    else:
        assert index is not None
        if not -len(steps) <= index < len(steps):
            raise UnknownModelError(
                f"{official_name} has {len(steps)} checkpoints; checkpoint_index={index} is not one of them."
            )
        position = index % len(steps)
    return TrainingCheckpoint(position, steps[position], template.format(step=steps[position]))
