"""Arguments that fall back on a model's settings."""

from types import TracebackType
from typing import Any

from transformer_lens.utilities.attribute_utils import get_nested_attr, set_nested_attr

USE_DEFAULT_VALUE = None
"""Given for an argument, it means: what the model's setting says."""


def override_or_use_default_value(default_flag: Any, override: Any | None = None) -> Any:
    """Returns `override`, or `default_flag` where that is `USE_DEFAULT_VALUE`."""
    return default_flag if override is USE_DEFAULT_VALUE else override


class LocallyOverridenDefaults:
    """Changes a model's settings for the time of a ``with`` block.

    ``prepend_bos`` stands for ``cfg.default_prepend_bos`` and ``padding_side`` for ``tokenizer.padding_side``;
    `USE_DEFAULT_VALUE` leaves a setting as it is, and so does ``padding_side`` for a model without a tokenizer.

    Args:
        model: A model with ``cfg`` and ``tokenizer``.
        **overrides: New values of the settings.
    """

    LOCATIONS = {"prepend_bos": "cfg.default_prepend_bos", "padding_side": "tokenizer.padding_side"}
    VALID: dict[str, list[Any]] = {
        "prepend_bos": [USE_DEFAULT_VALUE, True, False],
        "padding_side": [USE_DEFAULT_VALUE, "left", "right"],
    }

    def __init__(self, model: Any, **overrides: Any) -> None:
        self.model = model
        self.overrides = overrides
        self._before: dict[str, Any] = {}

    def __enter__(self) -> None:
        """Sets the new values.

        Raises:
            AssertionError: A name or a value is none of those possible.
        """
        for name, value in self.overrides.items():
            assert name in self.LOCATIONS, f"{name} is no setting; known are {', '.join(self.LOCATIONS)}"
            assert value in self.VALID[name], f"{name} must be one of {self.VALID[name]}, not {value!r}"
        for name, value in self.overrides.items():
            if value is USE_DEFAULT_VALUE or (name == "padding_side" and self.model.tokenizer is None):
                continue
            self._before[name] = get_nested_attr(self.model, self.LOCATIONS[name])
            set_nested_attr(self.model, self.LOCATIONS[name], value)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Brings back the values from before."""
        for name, value in self._before.items():
            set_nested_attr(self.model, self.LOCATIONS[name], value)
        self._before = {}
