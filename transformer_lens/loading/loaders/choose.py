"""Copy or assign: one pure function."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import dataclass

from torch import nn

from transformer_lens.loading.errors import LoadModeFallbackWarning
from transformer_lens.loading.loaders.assigning import AssigningLoader
from transformer_lens.loading.loaders.copying import CopyingLoader
from transformer_lens.loading.loaders.loader import StateDictLoader

LOAD_MODES = ("auto", "assign", "copy")


@dataclass(frozen=True)
class Choice:
    """A loader, and why it.

    Attributes:
        mode: "assign" or "copy".
        reason: One sentence.
        falls_back: Whether "assign" was asked for and cannot be had.
    """

    mode: str
    reason: str
    falls_back: bool = False

    def loader(self) -> StateDictLoader:
        """Makes the loader."""
        return AssigningLoader() if self.mode == "assign" else CopyingLoader()


def can_assign() -> bool:
    """Whether this torch knows assignment (2.1 and later), by the signature of ``load_state_dict``."""
    return "assign" in inspect.signature(nn.Module.load_state_dict).parameters


def choose(load_mode: str, assigns: bool) -> Choice:
    """Decides between copying and assigning.

    Args:
        load_mode: What was asked for: "auto", "assign" or "copy".
        assigns: Whether this torch can assign.

    Raises:
        ValueError: There is no such mode.
    """
    if load_mode not in LOAD_MODES:
        raise ValueError(f"load_mode = {load_mode!r} is not one of {', '.join(LOAD_MODES)}.")
    if load_mode == "copy":
        return Choice("copy", "asked for: parameters own their memory")
    if assigns:
        how = "asked for" if load_mode == "assign" else "auto: this torch can"
        return Choice("assign", f"{how}; what is right already is not copied")
    reason = "this torch has no load_state_dict(assign=True), which came with 2.1"
    return Choice("copy", reason, falls_back=load_mode == "assign")


def warn_of_fallback(choice: Choice) -> None:
    """Warns where "assign" was asked for and is not done."""
    if choice.falls_back:
        warnings.warn(
            f"load_mode='assign' is done as 'copy': {choice.reason}. The peak is the model and one tensor.",
            LoadModeFallbackWarning,
            stacklevel=4,
        )
