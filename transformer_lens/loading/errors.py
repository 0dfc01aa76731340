"""The errors of loading: one tree, each also what upstream raised in its place.

Every message follows one template: where it happened, what both sides say, the likely cause, the next step.
``docs/errors.md`` has one section an error class.
"""

from __future__ import annotations


class LoadingError(Exception):
    """The base of everything that loading raises on purpose; each message ends with its section of the docs."""

    def __str__(self) -> str:
        # Not KeyError's __str__, which some of the classes below would inherit: it hides line breaks.
        message = str(self.args[0]) if self.args else ""
        return f"{message}\n  (docs/errors.md, {type(self).__name__})"


class UnknownModelError(LoadingError, ValueError):
    """Raised when a name is neither a folder, nor an alias, nor found on the hub."""


class UnsupportedArchitectureError(LoadingError, NotImplementedError):
    """Raised when ``config.json`` names an architecture that has no table here."""


class UnhandledConfigError(LoadingError, NotImplementedError):
    """Raised when a config field changes the model in a way that is not implemented."""


class CorruptCheckpointError(LoadingError, ValueError):
    """Raised when a file of a checkpoint is broken, incomplete, or would run code."""


class MissingTensorError(LoadingError, KeyError, RuntimeError):
    """Raised when the checkpoint lacks a tensor that the model needs."""


class UnexpectedTensorError(LoadingError, RuntimeError):
    """Raised when the checkpoint holds a tensor that no table entry uses or drops by name."""


class LayoutMismatchError(LoadingError, RuntimeError, ValueError):
    """Raised when a tensor's shape does not fit the layout its table declares."""


class QuantizedTensorError(LoadingError, ValueError, NotImplementedError):
    """Raised when a step needs the numbers of a packed weight, or the packing is not supported."""


class DeviceError(LoadingError, ValueError, RuntimeError):
    """Raised before anything is read for a device that is none, or that this machine or this torch does not have."""


class InsufficientMemoryError(LoadingError, MemoryError):
    """Raised before a load that cannot fit in the memory at hand."""


class ProcessedCacheWarning(UserWarning):
    """Warns that the cache of processed weights could not be used or added to; the model is loaded, and right."""


class LoadModeFallbackWarning(UserWarning):
    """Warns that ``load_mode="assign"`` was asked of a torch that cannot do it."""
