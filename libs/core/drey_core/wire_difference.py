"""Differences as protobuf bytes: `drey.snapshot.v1.PvDifference`, in the manner of `wire`."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import add

import numpy as np

from drey_core.compare import Comparison, DifferenceClass
from drey_core.values import I8, Columns, State
from drey_core.wire import Labels, encode_values, varint, wrap

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
    other_freshness: int = 0
    """`Freshness` of the other's values, where it is the live machine."""


def encode_differences(
    names: Sequence[str], numbers: I8, rows: I8, setpoint: Side | None, readback: Side | None
) -> list[bytes]:
    """The field `differences = 1` of each of `rows`, in their order, for `wire.chunk` and `wrap`.

    `names`, `numbers` and the sides have one entry a PV; only those of `rows` are encoded.
    """
    tails = np.asarray(numbers, "<u8")[rows].tobytes()
    bodies = [
        wrap(1, names[row].encode(errors="replace")) + b"\x11" + tails[at : at + 8]
        for row, at in zip(rows.tolist(), range(0, 8 * len(rows), 8), strict=True)
    ]
    for field, side in ((3, setpoint), (4, readback)):
        if side is not None:
            bodies = list(map(add, bodies, _channel_fields(field, side, rows)))
    return list(map(wrap, repeat(1), bodies))


def _channel_fields(field: int, side: Side, rows: I8) -> list[bytes]:
    cls = side.comparison.cls[rows].tolist()
    reference = _value_fields(2, side.reference.take(rows), side.reference_labels, 0)
    other = _value_fields(3, side.other.take(rows), side.other_labels, side.other_freshness)
    figures, extras = _figures(side.comparison, rows), _extras(side.comparison, rows)
    heads = [bytes((0x08, number)) for number in range(len(DifferenceClass))]
    return [
        wrap(field, b"".join((heads[c], *parts))) if c else b""
        for c, *parts in zip(cls, reference, other, figures, extras, strict=True)
    ]


def _value_fields(
    field: int, columns: Columns, labels: Labels | None, freshness: int
) -> list[bytes]:
    values = map(wrap, repeat(field), encode_values(columns, freshness, labels=labels))
    here = (columns.state != State.ABSENT).tolist()
    return [value if h else b"" for h, value in zip(here, values, strict=True)]


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
