"""Patterns of an adapter's config, matched against names of modules in a bounded number of steps.

peft hands them to ``re``, where a few characters can take longer than the age of the universe. Here a pattern is read
as a set of states that are followed side by side: a character of the name costs at most one step a state. What that
cannot express (back references, look-around, flags) is refused; no adapter that was written by peft needs it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

_LONGEST = 2_000
_DEEPEST = 40
_MOST_STATES = 5_000
_MOST_STEPS = 2_000_000
# A literal name, its dots standing for any character: most patterns are one, and `re` needs no state to go back to.
_LITERAL = re.compile(r"[A-Za-z0-9_.\-]+")
_COUNTS = re.compile(r"\{(\d{0,4})(,?)(\d{0,4})\}")
_WORD = re.compile(r"\w")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\\\[\]])*\]")

Accepts = Callable[[str], bool]


@dataclass
class Budget:
    """Steps that the patterns of one adapter may still take together.

    Attributes:
        left: Of them.
    """

    left: int = _MOST_STEPS

    def spend(self, steps: int) -> None:
        """Takes steps off.

        Raises:
            ValueError: There are not so many left.
        """
        self.left -= steps
        if self.left < 0:
            raise ValueError(f"matching its patterns takes more than {_MOST_STEPS} steps")


@dataclass
class _State:
    """A place in a pattern.

    Attributes:
        accepts: Which character leads on; None where none is read.
        at: "start", "end" or "edge" (of a word) where the way on is open only there.
        ways: Places that follow.
    """

    accepts: Accepts | None = None
    at: str = ""
    ways: list[int] = field(default_factory=list)


class NamePattern:
    """A pattern, read once and matched against many names."""

    def __init__(self, text: str, suffix: bool, budget: Budget) -> None:
        """Reads a pattern.

        Args:
            text: The pattern.
            suffix: Whether it may match what stands behind a dot, as the keys of ``rank_pattern`` do; else it must
                match the whole name.
            budget: What its matching is taken off.

        Raises:
            ValueError: It is none, or needs more than can be followed here.
        """
        self.text = text
        self._budget = budget
        self._seen: dict[tuple[frozenset[int], str, str], frozenset[int]] = {}
        self._literal: re.Pattern[str] | None = None
        if len(text) > _LONGEST:
            raise ValueError(f"a pattern has {len(text)} characters")
        if _LITERAL.fullmatch(text):
            self._literal = re.compile((r"(?:.*\.)?" if suffix else "") + f"(?:{text})")
            return
        reader = _PatternReader(text)
        self._states = reader.states
        inner = reader.read()
        self._end = reader.add(_State())
        body = inner(reader.add(_State(at="end", ways=[self._end])))
        self._start = body
        self._has_edges = any(state.at == "edge" for state in self._states)
        if suffix:
            dot = reader.add(_State(accepts=lambda char: char == ".", ways=[body]))
            any_of_them = reader.add(_State())
            again = reader.add(_State(accepts=_anything, ways=[any_of_them]))
            self._states[any_of_them].ways = [again, dot]
            self._start = reader.add(_State(ways=[body, any_of_them]))

    def matches(self, name: str) -> bool:
        """Whether a name matches.

        Raises:
            ValueError: The budget is used up.
        """
        if self._literal is not None:
            self._budget.spend(1)
            return self._literal.fullmatch(name) is not None
        here = self._closure({self._start}, "", name[:1])
        for place, char in enumerate(name, 1):
            after = name[place : place + 1]
            if after and not self._has_edges:
                # Then it only matters that there is a character.
                after = "."
            known = self._seen.get((here, char, after))
            if known is None:
                self._budget.spend(len(here) + 1)
                onward = {way for state in here if self._takes(state, char) for way in self._states[state].ways}
                known = self._closure(onward, char, after)
                self._seen[here, char, after] = known
            if not known:
                return False
            here = known
        return self._end in here

    def _takes(self, state: int, char: str) -> bool:
        accepts = self._states[state].accepts
        return accepts is not None and accepts(char)

    def _closure(self, states: set[int], before: str, after: str) -> frozenset[int]:
        """Returns the states that are reached between two characters; an empty one is an end of the name."""
        is_open = {
            "": True,
            "start": not before,
            "end": not after,
            "edge": bool(_WORD.match(before)) != bool(_WORD.match(after)),
        }
        out: set[int] = set()
        waiting = list(states)
        while waiting:
            number = waiting.pop()
            if number in out:
                continue
            out.add(number)
            state = self._states[number]
            if state.accepts is None and is_open[state.at]:
                waiting.extend(state.ways)
        self._budget.spend(len(out))
        return frozenset(out)


# Gets the place that follows, and returns the place at which the part begins.
_Part = Callable[[int], int]


class _PatternReader:
    """Reads the text of a pattern into states."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.states: list[_State] = []
        self._at = 0
        self._depth = 0
        self._copies = 0

    def add(self, state: _State) -> int:
        """Adds a state and returns its number.

        Raises:
            ValueError: There are too many.
        """
        if len(self.states) >= _MOST_STATES:
            raise ValueError(f"the pattern {self.text[:60]!r} has more than {_MOST_STATES} states")
        self.states.append(state)
        return len(self.states) - 1

    def read(self) -> _Part:
        """Reads the whole text.

        Raises:
            ValueError: It is no pattern, or one that is not followed here.
        """
        part = self._alternatives()
        if self._at < len(self.text):
            raise self._refused("a bracket that nothing opens")
        return part

    def _refused(self, what: str) -> ValueError:
        return ValueError(f"the pattern {self.text[:60]!r} has {what} at character {self._at}")

    def _peek(self) -> str:
        return self.text[self._at : self._at + 1]

    def _alternatives(self) -> _Part:
        parts = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            parts.append(self._sequence())
        if len(parts) == 1:
            return parts[0]
        return lambda after: self.add(_State(ways=[part(after) for part in parts]))

    def _sequence(self) -> _Part:
        parts: list[_Part] = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._repeated())

        def follow(after: int) -> int:
            for part in reversed(parts):
                after = part(after)
            return after

        return follow

    def _repeated(self) -> _Part:
        begins = self._peek()
        part = self._atom()
        counts = self._counts()
        if counts is None:
            return part
        if begins in ("^", "$") or self.text[self._at - 3 : self._at - 1] == r"\b":
            raise self._refused("a repeated anchor")
        if self._peek() == "?":
            # Which of several ways is tried first does not change whether there is one.
            self._at += 1
        if self._peek() in ("*", "+", "?") and self._peek():
            raise self._refused("a repeated repetition")
        least, most = counts
        return lambda after: self._repetition(part, least, most, after)

    def _repetition(self, part: _Part, least: int, most: int | None, after: int) -> int:
        # A part that reads nothing adds no state, and could be copied for ever.
        self._copies += (least if most is None else most) + 1
        if self._copies > _MOST_STATES:
            raise ValueError(f"the pattern {self.text[:60]!r} repeats its parts more than {_MOST_STATES} times")
        if most is None:
            loop = self.add(_State())
            self.states[loop].ways = [part(loop), after]
            after = loop
        else:
            end = after
            for _ in range(most - least):
                after = self.add(_State(ways=[part(after), end]))
        for _ in range(least):
            after = part(after)
        return after

    def _counts(self) -> tuple[int, int | None] | None:
        """Returns how often the last part may stand, or None where nothing is said."""
        simple = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        sign = self._peek()
        if sign in simple:
            self._at += 1
            return simple[sign]
        if sign != "{":
            return None
        found = _COUNTS.match(self.text, self._at)
        if found is None or not (found[1] or found[3]):
            raise self._refused("a curly bracket that is no count")
        self._at = found.end()
        least = int(found[1] or 0)
        most = least if not found[2] else int(found[3]) if found[3] else None
        if most is not None and most < least:
            raise self._refused("a count that ends before it begins")
        return least, most

    def _atom(self) -> _Part:
        char = self._peek()
        if char == "(":
            return self._group()
        if char in "*+?{)":
            raise self._refused(f"{char!r} behind nothing")
        if char == "[":
            return self._one_of()
        self._at += 1
        if char == "\\":
            return self._escaped()
        if char in "^$":
            at = "start" if char == "^" else "end"
            return lambda after: self.add(_State(at=at, ways=[after]))
        return self._reading(_anything if char == "." else _exactly(char))

    def _reading(self, accepts: Accepts) -> _Part:
        return lambda after: self.add(_State(accepts=accepts, ways=[after]))

    def _group(self) -> _Part:
        self._at += 1
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._refused("brackets that are nested too deeply")
        if self._peek() == "?":
            if self.text[self._at : self._at + 2] != "?:":
                raise self._refused("a group of a kind that is not followed here (a look-around, a name, a flag)")
            self._at += 2
        part = self._alternatives()
        if self._peek() != ")":
            raise self._refused("a bracket that nothing closes")
        self._at += 1
        self._depth -= 1
        return part

    def _escaped(self) -> _Part:
        char = self._peek()
        self._at += 1
        if char in ("d", "w", "s", "D", "W", "S") and char:
            return self._reading(_of_class(f"\\{char}"))
        if char == "b":
            return lambda after: self.add(_State(at="edge", ways=[after]))
        if not char or char.isalnum():
            raise self._refused("an escape that is not followed here")
        return self._reading(_exactly(char))

    def _one_of(self) -> _Part:
        found = _CLASS.match(self.text, self._at)
        if found is None or any(pair in found[0] for pair in ("--", "&&", "~~", "||")):
            raise self._refused("square brackets that are not followed here")
        self._at = found.end()
        try:
            return self._reading(_of_class(found[0]))
        except re.error:
            raise self._refused("square brackets that are no set of characters") from None


def _anything(char: str) -> bool:
    return char != "\n"


def _exactly(wanted: str) -> Accepts:
    return lambda char: char == wanted


def _of_class(text: str) -> Accepts:
    one = re.compile(text)
    return lambda char: one.fullmatch(char) is not None
