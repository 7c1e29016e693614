"""Differences as protobuf bytes: `drey.snapshot.v1.PvDifference`, in the manner of `wire`."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import add

import numpy as np

from drey_core.compare import Comparison
from drey_core.values import I8, U1, Columns, State
from drey_core.wire import (
    _ABSENT,
    _SLOW,
    _TEMPLATES,
    MAX_CHUNK_BYTES,
    Labels,
    _cut,
    _groups,
    _Source,
    encode_values,
    value_parts,
    varint,
    wrap,
)

_SHOWN_BYTES = MAX_CHUNK_BYTES // 4
"""Of each of the four values of a difference, so that they fit into one message together."""

_FIGURES = ((b"\x21", "delta"), (b"\x29", "relative"), (b"\x31", "deviation"))


@dataclass(frozen=True, slots=True)
class Side:
    """The setpoints, or the readbacks, of n PVs: what was compared, and the outcome.

    A row of class UNSPECIFIED is a PV without such a channel.
    """

    comparison: Comparison
    reference: Columns
    other: Columns
    reference_labels: Labels | None = None
    other_labels: Labels | None = None
    other_freshness: int | U1 = 0
    """`Freshness` of the other's values where it is the live machine: one, or shape (n,)."""


def encode_differences(
    names: Sequence[str], numbers: I8, rows: I8, setpoint: Side | None, readback: Side | None
) -> list[bytes]:
    """The field `differences = 1` of each of `rows`, in their order, for `wire.chunk` and `wrap`.

    `names`, `numbers` and the sides have one entry a PV; only those of `rows` are encoded. An
    array or string above `_SHOWN_BYTES` is shown by its first part.
    """
    if len(rows) == 0:
        return []
    tails = np.asarray(numbers, "<u8")[rows].tobytes()
    bodies = [
        wrap(1, names[row].encode(errors="replace")) + b"\x11" + tails[at : at + 8]
        for row, at in zip(rows.tolist(), range(0, 8 * len(rows), 8), strict=True)
    ]
    for field, side in ((3, setpoint), (4, readback)):
        if side is not None:
            bodies = list(map(add, bodies, _channel_fields(field, side, rows, names)))
    return list(map(wrap, repeat(1), bodies))


def _channel_fields(field: int, side: Side, rows: I8, names: Sequence[str]) -> list[bytes]:
    """The field of one role of each row; `b""` for PVs that have no such channel."""
    values = _Pair(side, rows)
    codes = values.codes()
    out = np.empty(len(rows), object)
    every = np.arange(len(rows))
    for group in _groups(codes):
        at = every[group]
        code = int(codes[at[0]])
        if code == _NOTHING:
            out[at] = b""
        elif code == _ONE_BY_ONE:
            encoded = _one_by_one(field, side, rows[at], names)
            out[at] = np.fromiter(encoded, object, len(encoded))
        else:
            out[at] = _cut(values.matrix(field, at, code & 7))
    fields: list[bytes] = out.tolist()
    return fields


_NOTHING, _ONE_BY_ONE = -2, -1


class _Pair:
    """The values of rows on both sides, as templates write them."""

    def __init__(self, side: Side, rows: I8) -> None:
        self._comparison, self._rows = side.comparison, rows
        self._sources = [
            (2, _source(side.reference.take(rows), 0)),
            (3, _source(side.other.take(rows), _of_rows(side.other_freshness, rows))),
        ]
        self._figures = [getattr(side.comparison, name)[rows] for _, name in _FIGURES]

    def codes(self) -> I8:
        """What decides on the layout: the kinds of both, and in three bits the figures there."""
        codes = np.zeros(len(self._rows), np.int64)
        slow = np.zeros(len(self._rows), bool)
        for _, source in self._sources:
            codes = codes << 9 | (source.code.astype(np.int64) + 1)
            slow |= source.code == _SLOW
        codes <<= 3
        for bit, column in enumerate(self._figures):
            codes |= (~np.isnan(column)).astype(np.int64) << bit
        comparison, rows = self._comparison, self._rows
        slow |= (comparison.elements_different[rows] != 0) | (comparison.largest_at[rows] != 0)
        slow |= comparison.labels_moved[rows]
        codes[slow] = _ONE_BY_ONE
        codes[comparison.cls[rows] == 0] = _NOTHING
        return codes

    def matrix(self, field: int, at: I8, figures: int) -> U1:
        """The fields of rows of one code, shape (m, bytes of a field)."""
        layout = [
            (number, source, _TEMPLATES[int(source.code[at[0]])])
            for number, source in self._sources
            if source.code[at[0]] != _ABSENT
        ]
        size = 2 + sum(template.size + 2 for *_, template in layout) + 9 * figures.bit_count()
        head = bytes((field << 3 | 2,)) + varint(size) + b"\x08"
        matrix = np.empty((len(at), len(head) - 1 + size), np.uint8)
        matrix[:, : len(head)] = np.frombuffer(head, np.uint8)
        matrix[:, len(head)] = self._comparison.cls[self._rows[at]]
        start = len(head) + 1
        for number, source, template in layout:
            matrix[:, start] = number << 3 | 2
            matrix[:, start + 1] = template.size
            template.write(matrix, start + 2, source, at)
            start += 2 + template.size
        for bit, (tag, _) in enumerate(_FIGURES):
            if figures >> bit & 1:
                matrix[:, start] = tag[0]
                column = np.ascontiguousarray(self._figures[bit][at], "<f8")
                matrix[:, start + 1 : start + 9] = column.view(np.uint8).reshape(-1, 8)
                start += 9
        return matrix


def _source(columns: Columns, freshness: int | U1) -> _Source:
    return _Source(columns, freshness, columns.state != State.ABSENT)


def _of_rows(freshness: int | U1, rows: I8) -> int | U1:
    return freshness if isinstance(freshness, int) else freshness[rows]


def _one_by_one(field: int, side: Side, rows: I8, names: Sequence[str]) -> list[bytes]:
    """Any values: strings, enums, arrays, odd statuses."""
    cls = side.comparison.cls[rows].tolist()
    fresh = _of_rows(side.other_freshness, rows)
    called = [names[row] for row in rows.tolist()]
    reference = _value_fields(2, side.reference.take(rows), side.reference_labels, 0, called)
    other = _value_fields(3, side.other.take(rows), side.other_labels, fresh, called)
    figures, extras = _figures(side.comparison, rows), _extras(side.comparison, rows)
    return [
        wrap(field, b"".join((b"\x08", varint(c), *parts)))
        for c, *parts in zip(cls, reference, other, figures, extras, strict=True)
    ]


def _value_fields(
    field: int, columns: Columns, labels: Labels | None, freshness: int | U1, names: Sequence[str]
) -> list[bytes]:
    values = encode_values(columns, freshness, labels=labels)
    source = None
    for row, value in enumerate(values):
        if len(value) > _SHOWN_BYTES:
            source = source or _source(columns, freshness)
            values[row] = next(value_parts(names[row], row, source, _SHOWN_BYTES, labels))
    here = (columns.state != State.ABSENT).tolist()
    return [wrap(field, value) if h else b"" for h, value in zip(here, values, strict=True)]


def _figures(comparison: Comparison, rows: I8) -> list[bytes]:
    """delta, relative_delta and deviation, those that are not NaN; cut by which are there."""
    columns = [getattr(comparison, name)[rows] for _, name in _FIGURES]
    there = np.array([~np.isnan(column) for column in columns])
    pattern = there[0] * 1 + there[1] * 2 + there[2] * 4
    out = np.empty(len(rows), object)
    for code in np.unique(pattern).tolist():
        chosen = np.flatnonzero(pattern == code)
        parts = []
        for bit, (tag, _) in enumerate(_FIGURES):
            if code >> bit & 1:
                block = np.empty((len(chosen), 9), np.uint8)
                block[:, 0] = tag[0]
                values = np.ascontiguousarray(columns[bit][chosen], "<f8")
                block[:, 1:] = values.view(np.uint8).reshape(-1, 8)
                parts.append(block)
        cut = [b""] * len(chosen)
        if parts:
            matrix = np.ascontiguousarray(np.concatenate(parts, axis=1))
            cut = matrix.view(f"V{matrix.shape[1]}")[:, 0].tolist()
        out[chosen] = np.fromiter(cut, object, len(cut))
    encoded: list[bytes] = out.tolist()
    return encoded


def _extras(comparison: Comparison, rows: I8) -> list[bytes]:
    """What only arrays and enums have."""
    out = [b""] * len(rows)
    beyond, at = comparison.elements_different[rows], comparison.largest_at[rows]
    moved = comparison.labels_moved[rows]
    for i in np.flatnonzero((beyond != 0) | (at != 0) | moved).tolist():
        out[i] = b"".join(
            (
                b"\x38",
                varint(int(beyond[i])),
                b"\x40",
                varint(int(at[i])),
                struct.pack("BB", 0x48, bool(moved[i])),
            )
        )
    return out
