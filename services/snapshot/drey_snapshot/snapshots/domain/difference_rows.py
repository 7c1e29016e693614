"""Differences as protobuf bytes: `PvDifference`, without a message object for each.

Values are encoded by `drey_core.wire.RowEncoder`, as rows of nameless PVs with a setpoint only,
and cut out of these: field 3 of `PvRow` has the form of field 3 of `ChannelDifference`.
"""

from __future__ import annotations

import math
import struct

import numpy as np

from drey_core.compare import Comparison
from drey_core.pages import PAGE_SHIFT
from drey_core.values import I8, U1, Columns, State
from drey_core.wire import Labels, RowEncoder, varint, wrap
from drey_snapshot.snapshots.domain.differences import Differences, Side

_REFERENCE_TAG = b"\x12"
_ROW_HEAD = len(b"\x0a\x00\x11") + 8
"""Bytes of an empty name and a number, in front of the values of a row."""
_FRESH, _STALE = 1, 2
_DELTA, _RELATIVE, _DEVIATION = b"\x21", b"\x29", b"\x31"


def encode_differences(found: Differences, rows: I8, *, live: bool) -> list[bytes]:
    """The field `differences = 1` of a `DifferenceChunk` for each row, in the order given.

    `live` says that the other is the machine: its values get a freshness. An array above 1 MiB is
    shown by its first part.
    """
    setpoints = _channels(found, "setpoint", rows, live)
    readbacks = _channels(found, "readback", rows, live)
    numbers = found.numbers
    out = []
    for at, setpoint, readback in zip(rows.tolist(), setpoints, readbacks, strict=True):
        head = wrap(1, found.name(at).encode(errors="replace"))
        number = b"\x11" + struct.pack("<Q", int(numbers[at]))
        out.append(wrap(1, head + number + setpoint + readback))
    return out


def _channels(found: Differences, role: str, rows: I8, live: bool) -> list[bytes]:
    """The field of `PvDifference` of one role, `b""` for PVs that have none on either side."""
    comparison: Comparison = getattr(found, role)
    references = _values(getattr(found.reference, role), rows, found.reference, False)
    others = _values(getattr(found.other, role), rows, found.other, live)
    field = 3 if role == "setpoint" else 4
    columns = zip(
        comparison.cls[rows].tolist(),
        references,
        others,
        comparison.delta[rows].tolist(),
        comparison.relative[rows].tolist(),
        comparison.deviation[rows].tolist(),
        comparison.elements_different[rows].tolist(),
        comparison.largest_at[rows].tolist(),
        comparison.labels_moved[rows].tolist(),
        strict=True,
    )
    return [wrap(field, _channel(*values)) if values[0] else b"" for values in columns]


def _channel(
    cls: int,
    reference: bytes,
    other: bytes,
    delta: float,
    relative: float,
    deviation: float,
    elements: int,
    largest: int,
    moved: bool,
) -> bytes:
    parts = [b"\x08", varint(cls), _REFERENCE_TAG + reference[1:] if reference else b"", other]
    for tag, number in ((_DELTA, delta), (_RELATIVE, relative), (_DEVIATION, deviation)):
        if not math.isnan(number):
            parts += (tag, struct.pack("<d", number))
    if elements:
        parts += (b"\x38", varint(elements))
    if largest:
        parts += (b"\x40", varint(largest))
    if moved:
        parts.append(b"\x48\x01")
    return b"".join(parts)


def _values(columns: Columns, rows: I8, side: Side, live: bool) -> list[bytes]:
    """Field 3 with the value of each row, tag and length included; `b""` where there is none."""
    taken = columns.take(rows)
    labels: Labels = side.view.where.metadata.labels
    encoder = RowEncoder([""] * len(rows), np.zeros(len(rows), np.int64))
    encoded = encoder.encode(
        np.arange(len(rows)),
        taken,
        None,
        _freshness(side, taken) if live else 0,
        sp_present=taken.state != State.ABSENT,
        labels=labels,
    )
    return [_cut(item) for item in encoded]


def _freshness(side: Side, columns: Columns) -> U1:
    stale = side.view.stale_pages
    if stale is None or len(stale) == 0:
        return np.full(len(columns), _FRESH, np.uint8)
    return np.where(np.isin(columns.key >> PAGE_SHIFT, stale), _STALE, _FRESH).astype(np.uint8)


def _cut(item: bytes) -> bytes:
    """What follows name and number in the first row field of `item`."""
    length, shift, at = 0, 0, 1
    while True:
        byte = item[at]
        length |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return item[at + _ROW_HEAD : at + length]
