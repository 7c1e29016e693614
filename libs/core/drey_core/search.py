"""Free-text search over PVs: words that must all occur, `*` and `?` as wildcards."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

_BETWEEN = "\0"
"""Stands between the fields of one PV, so that nothing matches across two of them."""


def words(text: str) -> list[str]:
    """The words of a search text, case folded, in order, each once."""
    return list(dict.fromkeys(text.casefold().split()))


def _matcher(word: str) -> Callable[[str], object]:
    if "*" not in word and "?" not in word:
        return lambda haystack: word in haystack
    wild = {"*": f"[^{_BETWEEN}]*", "?": f"[^{_BETWEEN}]"}
    pattern = "".join(wild.get(char) or re.escape(char) for char in re.sub(r"\*+", "*", word))
    return re.compile(pattern).search


class SearchIndex:
    """The texts of n PVs, folded once. Immutable."""

    def __init__(self, *fields: Sequence[str]) -> None:
        """`fields` are columns of n texts each: names, devices, descriptions."""
        self._texts = [_BETWEEN.join(row).casefold() for row in zip(*fields, strict=True)]

    def __len__(self) -> int:
        return len(self._texts)

    def mask(self, text: str) -> NDArray[np.bool_]:
        """Which PVs have every word of `text` in some field; shape (n,). No words: all."""
        mask = np.ones(len(self._texts), bool)
        for word in words(text):
            rows = np.flatnonzero(mask)
            matches = _matcher(word)
            texts: Iterable[str] = self._texts
            if len(rows) < len(self._texts):
                texts = [self._texts[row] for row in rows.tolist()]
            mask[rows] = [bool(matches(haystack)) for haystack in texts]
        return mask


def like_patterns(text: str) -> list[str]:
    r"""The words of a search text as SQL LIKE patterns with `\` as escape, to be matched by ILIKE.

    `_`, `%` and `\` of the text are literal; every pattern must match one of the fields.
    """
    escape = str.maketrans({"\\": "\\\\", "%": r"\%", "_": r"\_", "*": "%", "?": "_"})
    return [f"%{word.translate(escape)}%" for word in words(text)]
