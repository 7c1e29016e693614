"""Extracts: some elements of an array, where a watch limits them. Never the value.

An extract has the kind of its array with `EXTRACT` added, and in the heap a head before its
elements. It is made for the wire alone: no batch, page or comparison knows that kind.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from drey_core.values import (
    ARRAY,
    ELEMENT_DTYPE,
    EXTRACT,
    I8,
    STRING_ARRAY,
    U1,
    U8,
    Kind,
    heap_byte_lengths,
    pack_strings,
    unpack_strings,
)

EXTRACT_HEAD = struct.Struct("<QII")
"""Number of elements of the whole array, decimation, step."""


class Decimation(IntEnum):
    """How elements are chosen; numbers of `drey.common.v1.ArrayDecimation`, which says more."""

    FIRST = 1
    STRIDE = 2
    MIN_MAX = 3


@dataclass(frozen=True, slots=True)
class ArrayShape:
    """Most elements of an array (1 or more; with MIN_MAX 2 or more), and how they are chosen."""

    max_elements: int
    decimation: Decimation = Decimation.STRIDE

    def extract_elements(self, kind: int, raw: bytes) -> tuple[int, bytes]:
        """The extract of an array of `kind` with these heap bytes; the array itself if it fits."""
        element = kind & ~ARRAY
        if element == Kind.STRING:
            return self._extract_strings(kind, raw)
        array = np.frombuffer(raw, ELEMENT_DTYPE[element])
        total = len(array)
        if total <= self.max_elements:
            return kind, raw
        decimation, step = self._decimation_of(element, total)
        if decimation == Decimation.FIRST:
            chosen = array[: self.max_elements]
        elif decimation == Decimation.STRIDE:
            chosen = array[::step]
        else:
            starts = np.arange(0, total, step)
            chosen = np.empty(2 * len(starts), array.dtype)
            with np.errstate(invalid="ignore"):  # signaling NaN
                chosen[0::2] = np.fmin.reduceat(array, starts)
                chosen[1::2] = np.fmax.reduceat(array, starts)
        return kind | EXTRACT, EXTRACT_HEAD.pack(total, decimation, step) + chosen.tobytes()

    def _extract_strings(self, kind: int, raw: bytes) -> tuple[int, bytes]:
        strings = unpack_strings(raw)
        if len(strings) <= self.max_elements:
            return kind, raw
        decimation, step = self._decimation_of(Kind.STRING, len(strings))
        chosen = strings[::step] if decimation != Decimation.FIRST else strings[: self.max_elements]
        return kind | EXTRACT, EXTRACT_HEAD.pack(len(strings), decimation, step) + pack_strings(
            chosen
        )

    def _decimation_of(self, element: int, total: int) -> tuple[Decimation, int]:
        """How elements are chosen, and the step."""
        if self.decimation == Decimation.FIRST:
            return Decimation.FIRST, 1
        if self.decimation == Decimation.MIN_MAX and element not in (Kind.STRING, Kind.ENUM):
            return Decimation.MIN_MAX, -(-total // (self.max_elements // 2))
        return Decimation.STRIDE, -(-total // self.max_elements)


_WIDTHS = np.ones(256, np.int64)
for _element, _dtype in ELEMENT_DTYPE.items():
    _WIDTHS[_element | ARRAY] = _dtype.itemsize
_WIDTHS[STRING_ARRAY] = 4  # each string has its length, and before them stands their count


def most_elements(kind: U1, data: U8) -> I8:
    """Number of elements of arrays by their cells, any shape; 0 for what is none.

    Of string arrays the number that they may have at most.
    """
    counts = heap_byte_lengths(data) // _WIDTHS[kind] - (kind == STRING_ARRAY)
    return np.where(kind & ARRAY, counts, 0)


def sent_bytes(kind: U1, data: U8, shape: ArrayShape | None) -> int:
    """Bytes of the elements of arrays in all, of those above the limit only what is sent.

    String arrays count with all their bytes.
    """
    lengths = heap_byte_lengths(data)
    if shape is not None:
        most = np.where(kind == STRING_ARRAY, lengths, shape.max_elements * _WIDTHS[kind])
        lengths = np.minimum(lengths, most)
    return int(lengths.sum())
