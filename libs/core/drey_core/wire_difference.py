"""Comparisons as protobuf bytes: `drey.compare.v1.ComparisonRow`, in the manner of `wire`."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from operator import add, methodcaller

import numpy as np

from drey_core.compare import Comparison
from drey_core.values import I8, U1, Columns, State
from drey_core.wire_values import (
    ABSENT_CODE,
    MAX_CHUNK_BYTES,
    SLOW_CODE,
    TEMPLATES,
    Labels,
    ValueSource,
    cut_rows,
    encode_values,
    encode_varint,
    equal_groups,
    value_parts,
    wrap_payload,
)

_ROW, _NAME, _DEVICE, _REFERENCE, _CELL = 1, 1, 3, 4, 6
_NUMBER_TAG = 0x11
_OTHER = 2
_FIGURES = ((b"\x19", "delta"), (b"\x21", "relative"), (b"\x29", "deviation"))
_FIRST_DIFFERENT = [b"", *(bytes((0x38, index)) for index in range(16))]


@dataclass(frozen=True, slots=True)
class DifferenceValues:
    """Values of n PVs of one role, as one state has them."""

    columns: Columns
    labels: Labels | None = None
    freshness: int | U1 = 0
    """`Freshness` of the values where they are of the live machine: one, or shape (n,)."""


@dataclass(frozen=True, slots=True)
class DifferenceChannels:
    """The setpoints, or the readbacks, of n PVs in one comparison, and the other's values.

    A row of class UNSPECIFIED is a PV without such a channel. `other` None: values are not sent.
    """

    comparison: Comparison
    other: DifferenceValues | None = None


@dataclass(frozen=True, slots=True)
class DifferenceRows:
    """n PVs to be encoded: what they are called, the reference's values, and a pair of
    `DifferenceChannels` (setpoints, readbacks) for each other. `first_different`
    has shape (n,), -1 for none.
    """

    names: Sequence[str]
    numbers: I8
    devices: Sequence[str]
    reference: tuple[DifferenceValues, DifferenceValues] | None
    cells: Sequence[tuple[DifferenceChannels, DifferenceChannels]]
    first_different: I8


class _Heads(dict[int, bytes]):
    """Tag and length of a field by the length of what it holds: looked up without Python."""

    def __init__(self, field: int) -> None:
        self._tag = bytes((field << 3 | 2,))

    def __missing__(self, size: int) -> bytes:
        head = self[size] = self._tag + encode_varint(size)
        return head


class _Texts(dict[str, bytes]):
    """The field of a text that many rows share."""

    def __init__(self, field: int) -> None:
        self._field = field

    def __missing__(self, text: str) -> bytes:
        encoded = self[text] = wrap_payload(self._field, text.encode(errors="replace"))
        return encoded


def _wrap_each(field: int, payloads: list[bytes]) -> list[bytes]:
    """`wrap` of each, at the speed of C."""
    return list(map(add, map(_Heads(field).__getitem__, map(len, payloads)), payloads))


def encode_rows(rows: DifferenceRows) -> list[bytes]:
    """The field `rows = 1` of each PV, in their order, for `wire.chunk_rows` and `wrap_payload`.

    An array or string is shown by its first part where all values of a row would not fit into one
    message together.
    """
    n = len(rows.names)
    if n == 0:
        return []
    shown = MAX_CHUNK_BYTES // (2 * (1 + len(rows.cells)))
    numbers = np.full((n, 9), _NUMBER_TAG, np.uint8)
    numbers[:, 1:] = np.ascontiguousarray(rows.numbers, "<u8").view(np.uint8).reshape(-1, 8)
    names = _wrap_each(_NAME, list(map(methodcaller("encode", "utf-8", "replace"), rows.names)))
    bodies = list(map(add, names, cut_rows(numbers).tolist()))
    bodies = list(map(add, bodies, map(_Texts(_DEVICE).__getitem__, rows.devices)))
    if rows.reference is not None:
        for field, values in enumerate(rows.reference, _REFERENCE):
            fields = _reference_fields(field, values, rows.names, shown)
            bodies = list(map(add, bodies, fields))
    for setpoint, readback in rows.cells:
        cell = map(
            add,
            _channel_fields(1, setpoint, rows.names, shown),
            _channel_fields(2, readback, rows.names, shown),
        )
        bodies = list(map(add, bodies, _wrap_each(_CELL, list(cell))))
    first = map(_FIRST_DIFFERENT.__getitem__, (rows.first_different + 1).tolist())
    return _wrap_each(_ROW, list(map(add, bodies, first)))


def _reference_fields(
    field: int, values: DifferenceValues, names: Sequence[str], shown: int
) -> list[bytes]:
    """The reference's field of one role of each row; `b""` for PVs that have no such channel."""
    source = _value_source(values.columns, values.freshness)
    out = np.empty(len(names), object)
    every = np.arange(len(names))
    for group in equal_groups(source.code):
        index = every[group]
        code = int(source.code[index[0]])
        if code == ABSENT_CODE:
            out[index] = b""
        elif code == SLOW_CODE:
            called = [names[row] for row in index.tolist()]
            encoded = _value_fields(field, _of_rows(values, index), called, shown)
            out[index] = np.fromiter(encoded, object, len(encoded))
        else:
            template = TEMPLATES[code]
            matrix = np.empty((len(index), 2 + template.size), np.uint8)
            matrix[:, 0], matrix[:, 1] = field << 3 | 2, template.size
            template.write_rows(matrix, 2, source, index)
            out[index] = cut_rows(matrix)
    fields: list[bytes] = out.tolist()
    return fields


def _channel_fields(
    field: int, channels: DifferenceChannels, names: Sequence[str], shown: int
) -> list[bytes]:
    """The field of one role of each row; `b""` for PVs that have no such channel."""
    layout = _Layout(channels)
    codes = layout.layout_codes()
    out = np.empty(len(names), object)
    every = np.arange(len(names))
    for group in equal_groups(codes):
        index = every[group]
        code = int(codes[index[0]])
        if code == _NOTHING:
            out[index] = b""
        elif code == _ONE_BY_ONE:
            encoded = _one_by_one(field, channels, index, names, shown)
            out[index] = np.fromiter(encoded, object, len(encoded))
        else:
            out[index] = cut_rows(layout.layout_matrix(field, index, code & 7))
    fields: list[bytes] = out.tolist()
    return fields


_NOTHING, _ONE_BY_ONE = -2, -1


class _Layout:
    """The channels of one comparison, as templates write them."""

    def __init__(self, channels: DifferenceChannels) -> None:
        self._comparison, other = channels.comparison, channels.other
        self._other = None if other is None else _value_source(other.columns, other.freshness)
        self._figures = [getattr(self._comparison, name) for _, name in _FIGURES]

    def layout_codes(self) -> I8:
        """What decides on the layout: the kind of the value, and in three bits the figures."""
        comparison = self._comparison
        codes = np.zeros(len(comparison), np.int64)
        slow = (comparison.elements_different != 0) | (comparison.largest_at != 0)
        slow |= comparison.labels_moved
        if self._other is not None:
            codes += self._other.code.astype(np.int64) + 1
            slow |= self._other.code == SLOW_CODE
        codes <<= 3
        for bit, column in enumerate(self._figures):
            codes |= (~np.isnan(column)).astype(np.int64) << bit
        codes[slow] = _ONE_BY_ONE
        codes[comparison.cls == 0] = _NOTHING
        return codes

    def layout_matrix(self, field: int, offsets: I8, figures: int) -> U1:
        """The fields of rows of one code, shape (m, bytes of a field)."""
        template = None
        if self._other is not None and self._other.code[offsets[0]] != ABSENT_CODE:
            template = TEMPLATES[int(self._other.code[offsets[0]])]
        size = 2 + 9 * figures.bit_count() + (template.size + 2 if template else 0)
        head = bytes((field << 3 | 2,)) + encode_varint(size) + b"\x08"
        matrix = np.empty((len(offsets), len(head) - 1 + size), np.uint8)
        matrix[:, : len(head)] = np.frombuffer(head, np.uint8)
        matrix[:, len(head)] = self._comparison.cls[offsets]
        start = len(head) + 1
        if template is not None and self._other is not None:
            matrix[:, start] = _OTHER << 3 | 2
            matrix[:, start + 1] = template.size
            template.write_rows(matrix, start + 2, self._other, offsets)
            start += 2 + template.size
        for bit, (tag, _) in enumerate(_FIGURES):
            if figures >> bit & 1:
                matrix[:, start] = tag[0]
                column = np.ascontiguousarray(self._figures[bit][offsets], "<f8")
                matrix[:, start + 1 : start + 9] = column.view(np.uint8).reshape(-1, 8)
                start += 9
        return matrix


def _value_source(columns: Columns, freshness: int | U1) -> ValueSource:
    return ValueSource(columns, freshness, columns.state != State.ABSENT)


def _of_rows(values: DifferenceValues, rows: I8) -> DifferenceValues:
    fresh = values.freshness
    return DifferenceValues(
        values.columns.take_rows(rows),
        values.labels,
        fresh if isinstance(fresh, int) else fresh[rows],
    )


def _one_by_one(
    field: int, channels: DifferenceChannels, rows: I8, names: Sequence[str], shown: int
) -> list[bytes]:
    """Any values: strings, enums, arrays, odd statuses."""
    comparison = channels.comparison
    cls = comparison.cls[rows].tolist()
    other: list[bytes] = [b""] * len(rows)
    if channels.other is not None:
        called = [names[row] for row in rows.tolist()]
        other = _value_fields(_OTHER, _of_rows(channels.other, rows), called, shown)
    figures, extras = _difference_figures(comparison, rows), _difference_extras(comparison, rows)
    return [
        wrap_payload(field, b"".join((b"\x08", encode_varint(c), *parts)))
        for c, *parts in zip(cls, other, figures, extras, strict=True)
    ]


def _value_fields(
    field: int, given: DifferenceValues, names: Sequence[str], shown: int
) -> list[bytes]:
    columns, labels = given.columns, given.labels
    values = encode_values(columns, given.freshness, labels=labels)
    source = None
    for row, value in enumerate(values):
        if len(value) > shown:
            source = source or _value_source(columns, given.freshness)
            values[row] = next(value_parts(names[row], row, source, shown, labels))
    here = (columns.state != State.ABSENT).tolist()
    return [wrap_payload(field, value) if h else b"" for h, value in zip(here, values, strict=True)]


def _difference_figures(comparison: Comparison, rows: I8) -> list[bytes]:
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


def _difference_extras(comparison: Comparison, rows: I8) -> list[bytes]:
    """What only arrays and enums have."""
    out = [b""] * len(rows)
    beyond, index = comparison.elements_different[rows], comparison.largest_at[rows]
    moved = comparison.labels_moved[rows]
    for i in np.flatnonzero((beyond != 0) | (index != 0) | moved).tolist():
        out[i] = b"".join(
            (
                b"\x30",
                encode_varint(int(beyond[i])),
                b"\x38",
                encode_varint(int(index[i])),
                struct.pack("BB", 0x40, bool(moved[i])),
            )
        )
    return out
