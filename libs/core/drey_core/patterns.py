"""Patterns with `*`, `?` and `[…]`, many at once, in one look at each character of a text.

A set of patterns is one automaton that is never in two minds: all positions in all patterns that a
text may have reached are the bits of one number, and a character takes that number to the next.
There is nothing to try again, whatever the patterns say: the cost is at most (characters of the
texts) × (characters of the patterns / 64), and where texts repeat each other a step is remembered.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from operator import getitem

MAX_CHARACTERS = 32_768
"""Characters of all patterns of one set: 4 KiB of positions."""
_REMEMBERED_BYTES = 16 << 20
"""Positions that are kept; then everything that was remembered is forgotten."""


class _State(dict[str, "_State"]):
    """Positions that were reached, and by character where each leads, as far as anybody asked."""

    __slots__ = ("_patterns", "positions")

    def __init__(self, patterns: Patterns, positions: int) -> None:
        self._patterns, self.positions = patterns, positions

    def __missing__(self, char: str) -> _State:
        after = self[char] = self._patterns._next_state(self.positions, char)
        return after


class Patterns:
    """n patterns, each of which has to match the whole of a text; case counts.

    A pattern has k elements: characters, `?` and sets. It takes k + 1 bits, of which the one at j
    says that its first j elements were matched, and stays set where a `*` comes next. Not for two
    threads at a time.
    """

    def __init__(self, patterns: Sequence[str], sets: bool = True) -> None:
        """`sets`: whether `[` begins a set of characters, as in file names. Time and memory grow
        with the characters of the patterns, which the caller bounds by `MAX_CHARACTERS`.
        """
        # places of bits: of starts, ends, stars, and behind each element by what it takes
        starts: list[int] = []
        ends: list[int] = []
        stays: list[int] = []
        anything: list[int] = []
        self._chars: dict[str, list[int]] = {}
        self._sets: dict[str, list[int]] = {}
        width = 0
        for pattern in patterns:
            starts.append(width)
            for element in elements(pattern, sets):
                if element == "*":
                    stays.append(width)
                    continue
                width += 1
                if element == "?":
                    anything.append(width)
                elif len(element) == 1:
                    self._chars.setdefault(element, []).append(width)
                else:
                    self._sets.setdefault(element, []).append(width)
            ends.append(width)
            width += 1
        self._width = width
        self._start_bits, self._stay_bits = self._place_bits(starts), self._place_bits(stays)
        self._end_bits, self._any_bits = self._place_bits(ends), self._place_bits(anything)
        self._accepting: dict[str, int] = {}
        self._states: dict[int, _State] = {}
        self.steps = 0
        """Characters that had to be looked at for the first time in a state."""

    def any_match(self, texts: Iterable[str]) -> list[bool]:
        """Of each text whether one of the patterns matches it."""
        ends = self._end_bits
        return [bool(self._reached_patterns(text) & ends) for text in texts]

    def all_match(self, fields: Iterable[str]) -> bool:
        """Whether each of the patterns matches one of the fields."""
        reached = 0
        for field in fields:
            reached |= self._reached_patterns(field) & self._end_bits
            if reached == self._end_bits:
                return True
        return reached == self._end_bits

    def _reached_patterns(self, text: str) -> int:
        return reduce(getitem, text, self._state_of(self._start_bits)).positions

    def _state_of(self, positions: int) -> _State:
        state = self._states.get(positions)
        if state is None:
            if len(self._states) * (self._width // 8 + 400) > _REMEMBERED_BYTES:
                for old in self._states.values():
                    old.clear()
                self._states.clear()
            state = self._states[positions] = _State(self, positions)
        return state

    def _next_state(self, positions: int, char: str) -> _State:
        self.steps += 1
        accepting = self._accepting.get(char)
        if accepting is None:
            accepting = self._accepting[char] = self._accepting_of(char)
        return self._state_of((positions << 1) & accepting | positions & self._stay_bits)

    def _accepting_of(self, char: str) -> int:
        """Positions behind the elements that take a character."""
        places = self._chars.get(char, [])
        for text, behind in self._sets.items():
            if _set_match(text)(char):
                places = places + behind
        return self._any_bits | self._place_bits(places)

    def _place_bits(self, places: Iterable[int]) -> int:
        bits = bytearray(self._width // 8 + 1)
        for place in places:
            bits[place >> 3] |= 1 << (place & 7)
        return int.from_bytes(bits, "little")


def elements(pattern: str, sets: bool = True) -> list[str]:
    """The elements of a pattern in order: `*`, `?`, a character, or a set with its brackets.

    A `[` that nothing closes is a character like others.
    """
    out: list[str] = []
    index = 0
    while index < len(pattern):
        end = _set_end(pattern, index) if sets and pattern[index] == "[" else index + 1
        out.append(pattern[index:end])
        index = end
    return out


def _set_end(pattern: str, start: int) -> int:
    """Where the set ends that begins at `start`; one behind it where it is none."""
    first = start + 1 + pattern.startswith("!", start + 1)
    close = pattern.find("]", first + pattern.startswith("]", first))
    return start + 1 if close < 0 else close + 1


def _set_match(text: str) -> Callable[[str], re.Match[str] | None]:
    """A set in its brackets over one character; `re` keeps the compiled form."""
    return re.compile(fnmatch.translate(text)).match
