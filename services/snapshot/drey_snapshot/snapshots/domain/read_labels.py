"""Under which labels the number of an enum was read."""

from __future__ import annotations

from collections.abc import Sequence

LabelTexts = tuple[bytes, ...]


def labels_of_number(
    number: int, text: bytes | None, candidates: Sequence[LabelTexts]
) -> LabelTexts:
    """The first of `candidates` that the label of now, `text`, bears out; empty: nobody knows.

    The value may have moved between the reads of its number and of its label: then labels that
    have that one are believed. Where no label could be read they all have to agree.
    """
    if text is None:
        return candidates[0] if len(set(candidates)) == 1 else ()
    for labels in candidates:
        if labels[number : number + 1] == (text,):
            return labels
    return next((labels for labels in candidates if text in labels), ())
