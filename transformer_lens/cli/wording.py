"""What the library says in arguments of ``from_pretrained``, said in flags."""

from __future__ import annotations

import re
from collections.abc import Mapping

_UNPROCESSED = "from_pretrained_no_processing"
_VALUE = r"""'[^'\n]*'|"[^"\n]*"|True|False|None|-?\d+(?:\.\d+)?"""


class Wording:
    """Puts flags in the place of arguments: ``dtype='auto'`` is ``--dtype auto``.

    What follows each other in one call is one line of flags: ``from_pretrained_no_processing, load_in_4bit=True`` is
    ``--no-processing --load-in-4bit``. Arguments that a terminal has no flag for stay as they are.
    """

    def __init__(self, flags_of: Mapping[str, tuple[str, ...]]) -> None:
        """Takes the flags of each argument: one, or that of a switch and that of the switch turned off."""
        self._flags_of = flags_of
        names = "|".join(flags_of)
        one = rf"(?<![\w.-])(?:{names})(?:=| = )(?:{_VALUE})?|{_UNPROCESSED}(?:\(\.\.\.\))?"
        several = rf"(?:{one})(?:(?:, | with | and with )(?:{one}))*"
        self._call = re.compile(rf"from_pretrained\((?:\.\.\., )?({several})\)")
        self._several = re.compile(several)
        self._one = re.compile(rf"({_UNPROCESSED})|({names})(?:=| = )({_VALUE})?")

    def __call__(self, text: str) -> str:
        """Returns a text with flags."""
        return self._several.sub(self._flags, self._call.sub(lambda call: call.group(1), text))

    def _flags(self, arguments: re.Match[str]) -> str:
        found: list[str] = []
        for unprocessed, name, value in self._one.findall(arguments.group(0)):
            flags = self._flags_of.get(name, ())
            if unprocessed:
                found.append("--no-processing")
            elif value == "False" and len(flags) == 1:
                return arguments.group(0)
            elif value in ("True", "False", "None", ""):
                found.append(flags[value == "False"])
            else:
                found.append(f"{flags[0]} {value.strip(chr(39) + chr(34))}")
        return " ".join(found)
