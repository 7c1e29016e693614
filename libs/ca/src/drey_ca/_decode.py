"""Raw DBR structures to columns: many at once, grouped by type, bit for bit."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from drey_ca import _dbr as dbr
from drey_ca._dbr import LIMITS, SCALAR_KIND
from drey_core.values import ARRAY, KIND_NONE, STRING_ARRAY, Kind, pack_strings

EPICS_EPOCH_NS = 631_152_000 * 10**9
"""1990-01-01 UTC, where EPICS time begins, in nanoseconds since 1970."""

_HEADER = np.dtype([("status", "<i2"), ("severity", "<i2"), ("secs", "<u4"), ("nsec", "<u4")])
# The bits that are extended to the 64 of a `data` cell: sign for signed, zero for the rest.
_BITS = ("", "<i2", "<u4", "<u2", "u1", "<i4", "<u8")


class Event(NamedTuple):
    """`elements` values as a libca callback copied them: a `dbr_time_*` structure in `raw`."""

    basic: int
    elements: int
    received: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class Decoded:
    """n decoded events; `blob[i]` is the heap value of row i, or None where `data` has it."""

    kind: NDArray[np.uint8]
    severity: NDArray[np.uint8]
    status: NDArray[np.uint16]
    source_time: NDArray[np.int64]
    data: NDArray[np.uint64]
    blob: list[bytes | None]


def _time_dtype(basic: int) -> np.dtype[Any]:
    """The `dbr_time_*` structure of one element, with the element as its bare bits."""
    return np.dtype(
        {
            "names": [*(_HEADER.names or ()), "value"],
            "formats": ["<i2", "<i2", "<u4", "<u4", _BITS[basic]],
            "offsets": [0, 2, 4, 8, dbr.TIME_OFFSET[basic]],
            "itemsize": dbr.time_size(basic, 1),
        }
    )


_SCALAR = [None, *(_time_dtype(basic) for basic in range(1, 7))]


def text(raw: bytes) -> bytes:
    """The bytes before the first NUL."""
    return raw.split(b"\0", 1)[0]


def heap_value(event: Event, long_string: bool, array: bool) -> tuple[int, bytes]:
    """Kind and heap bytes of a value that is a string or an array."""
    body = event.raw[dbr.TIME_OFFSET[event.basic] :]
    if long_string:
        return int(Kind.STRING), text(body)
    if event.basic != dbr.DBR_STRING:
        return int(SCALAR_KIND[event.basic]) | ARRAY, body
    if not array:
        return int(Kind.STRING), text(body)
    strings = [text(body[40 * i : 40 * i + 40]) for i in range(event.elements)]
    return STRING_ARRAY, pack_strings(strings)


def decode(
    events: Sequence[Event], long_string: NDArray[np.bool_], array: NDArray[np.bool_]
) -> Decoded:
    """Decode n events; `long_string[i]` and `array[i]` say what its channel natively is."""
    n = len(events)
    out = Decoded(
        np.full(n, KIND_NONE, np.uint8),
        np.zeros(n, np.uint8),
        np.zeros(n, np.uint16),
        np.zeros(n, np.int64),
        np.zeros(n, np.uint64),
        [None] * n,
    )
    basic = np.fromiter((e.basic for e in events), np.int64, n)
    in_heap = long_string | array | (basic == dbr.DBR_STRING)
    for code in range(1, 7):
        _decode_scalars(out, events, np.flatnonzero((basic == code) & ~in_heap), code)
    _decode_heap(out, events, np.flatnonzero(in_heap), long_string, array)
    return out


def _decode_scalars(
    out: Decoded, events: Sequence[Event], rows: NDArray[np.int64], basic: int
) -> None:
    if not len(rows):
        return
    raw = np.frombuffer(b"".join([events[i].raw for i in rows.tolist()]), _SCALAR[basic])
    _put_header(out, rows, raw)
    out.kind[rows] = SCALAR_KIND[basic]
    value = raw["value"]
    signed = value.dtype.kind == "i"
    out.data[rows] = value.astype(np.int64).view(np.uint64) if signed else value


def _decode_heap(
    out: Decoded,
    events: Sequence[Event],
    rows: NDArray[np.int64],
    long_string: NDArray[np.bool_],
    array: NDArray[np.bool_],
) -> None:
    if not len(rows):
        return
    listed = rows.tolist()
    raw = np.frombuffer(b"".join([events[i].raw[:12] for i in listed]), _HEADER)
    _put_header(out, rows, raw)
    for i in listed:
        out.kind[i], out.blob[i] = heap_value(events[i], bool(long_string[i]), bool(array[i]))


def _put_header(out: Decoded, rows: NDArray[np.int64], raw: NDArray[Any]) -> None:
    out.severity[rows] = raw["severity"]
    out.status[rows] = raw["status"]
    seconds = raw["secs"].astype(np.int64) * 10**9
    out.source_time[rows] = EPICS_EPOCH_NS + seconds + raw["nsec"]


# `dbr_ctrl_*` of the numeric types without their value: units and the limits in the order of
# the structure (display, alarm and warning high; warning, alarm low; control), where floating
# types put the precision first.
_CTRL = {
    dbr.DBR_SHORT: struct.Struct("<4x8s8h"),
    dbr.DBR_FLOAT: struct.Struct("<4xhxx8s8f"),
    dbr.DBR_CHAR: struct.Struct("<4x8s8B"),
    dbr.DBR_LONG: struct.Struct("<4x8s8i"),
    dbr.DBR_DOUBLE: struct.Struct("<4xhxx8s8d"),
}
_NAN_LIMITS = (float("nan"),) * len(LIMITS)


class Metadata(NamedTuple):
    """What one `dbr_ctrl_*` structure says; limits in the order of `LIMITS`."""

    precision: int
    limits: tuple[float, ...]
    units: bytes
    labels: tuple[bytes, ...]


def ctrl_size(basic: int) -> int:
    """Bytes of the `dbr_ctrl_*` structure that `metadata` reads."""
    return 6 + 16 * 26 if basic == dbr.DBR_ENUM else _CTRL[basic].size


def metadata(basic: int, raw: bytes) -> Metadata:
    """Decode the first `ctrl_size(basic)` bytes of a `dbr_ctrl_*` structure."""
    if basic == dbr.DBR_ENUM:
        count = min(max(int.from_bytes(raw[4:6], "little", signed=True), 0), 16)
        labels = tuple(text(raw[6 + 26 * i : 32 + 26 * i]) for i in range(count))
        return Metadata(-1, _NAN_LIMITS, b"", labels)
    fields = _CTRL[basic].unpack_from(raw)
    precision = fields[0] if len(fields) == 10 else -1
    return Metadata(precision, fields[-8:], text(fields[-9]), ())
