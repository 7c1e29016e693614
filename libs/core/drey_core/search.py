"""Free-text search over PVs: words that must all occur, `*` and `?` as wildcards."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from drey_core.patterns import Patterns

_BETWEEN = "\0"
"""Stands between the fields of one PV, so that nothing matches across two of them."""


def split_words(text: str) -> list[str]:
    """The words of a search text, case folded, in order, each once."""
    return list(dict.fromkeys(text.casefold().split()))


class SearchIndex:
    """The texts of n PVs, folded once. Immutable."""

    def __init__(self, *fields: Sequence[str]) -> None:
        """`fields` are columns of n texts each: names, devices, descriptions."""
        self._texts = [_BETWEEN.join(row).casefold() for row in zip(*fields, strict=True)]

    def __len__(self) -> int:
        return len(self._texts)

    def matching_mask(self, text: str) -> NDArray[np.bool_]:
        """Which PVs have every word of `text` in some field; shape (n,). No words: all."""
        asked = split_words(text)
        wild = [word for word in asked if "*" in word or "?" in word]
        # What of a word is no wildcard has to occur as it is: quickly asked, and it leaves few.
        plain = {part for word in asked for part in re.split(r"[*?]", word) if part}
        rows = np.arange(len(self._texts))
        for part in plain:
            rows = rows[[part in self._texts[row] for row in rows.tolist()]]
        if wild:
            patterns = Patterns([f"*{word}*" for word in wild], sets=False)
            rows = rows[
                [patterns.all_match(self._texts[row].split(_BETWEEN)) for row in rows.tolist()]
            ]
        mask = np.zeros(len(self._texts), bool)
        mask[rows] = True
        return mask
