"""Values as `ValueColumns` messages: the columns as they are, with a heap of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from drey_core.values import (
    I8,
    U1,
    Columns,
    Kind,
    heap_ref,
)
from drey_core.wire_values import MAX_CHUNK_BYTES, encode_varint, wrap_payload


def encode_columns(
    pv_numbers: I8, roles: U1, columns: Columns, freshness: U1 | None = None
) -> bytes:
    """A whole `ValueColumns` message; all shapes (n,), the columns keyed by channel number.

    `freshness` of live values, None for stored ones. The heap is laid out anew if it has gaps.
    """
    compacted = columns.compact_heap()
    has_value = columns.kind != Kind.NONE
    severity = np.minimum(columns.severity, 0xFE) + np.uint8(1)
    status = np.minimum(columns.status, 0xFFFE) + np.uint16(1)
    packed = (
        (1, pv_numbers, "<i8"),
        (2, columns.key, "<i8"),
        (3, roles, "u1"),
        (4, columns.kind, "u1"),
        (5, columns.state, "u1"),
        (6, columns.origin, "u1"),
        (7, () if freshness is None else freshness, "u1"),
        (8, severity * has_value, "u1"),
        (9, status * has_value, "<u2"),
        (10, columns.source_time, "<i8"),
        (11, columns.receive_time, "<i8"),
        (12, compacted.data, "<u8"),
    )
    fields = [
        wrap_payload(field, np.ascontiguousarray(column, dtype).tobytes())
        for field, column, dtype in packed
        if len(column)
    ]
    return b"".join((*fields, wrap_payload(13, compacted.heap)))


_COLUMN_ROW_BYTES = 48


def column_chunks(
    pv_numbers: I8,
    roles: U1,
    columns: Columns,
    max_bytes: int = MAX_CHUNK_BYTES,
    freshness: U1 | None = None,
) -> Iterator[bytes]:
    """`ValueColumns` messages of about `max_bytes` each, rows in order; as `encode_columns`.

    A value above `MAX_CHUNK_BYTES` is several messages of one entry, each with a part of its heap.
    """
    lengths = columns.heap_lengths()
    sizes = lengths + _COLUMN_ROW_BYTES
    ends = np.cumsum(sizes)
    first = 0
    while first < len(sizes):
        begin = int(ends[first] - sizes[first])
        last = max(int(np.searchsorted(ends, begin + max_bytes, side="right")), first + 1)
        rows = np.arange(first, last)
        taken = columns.take_rows(rows)
        fresh = None if freshness is None else freshness[rows]
        if int(lengths[first]) > MAX_CHUNK_BYTES:
            yield from _column_parts(pv_numbers[rows], roles[rows], taken, fresh)
        else:
            yield encode_columns(pv_numbers[rows], roles[rows], taken, fresh)
        first = last


def _column_parts(numbers: I8, roles: U1, one: Columns, freshness: U1 | None) -> Iterator[bytes]:
    """The messages of one large value."""
    raw = one.heap_bytes(0)
    for first in range(0, len(raw), MAX_CHUNK_BYTES):
        heap = raw[first : first + MAX_CHUNK_BYTES]
        data = np.array([heap_ref(0, len(heap))], np.uint64)
        part = b"\x08" + encode_varint(first) + b"\x10" + encode_varint(len(raw))
        whole = encode_columns(numbers, roles, replace(one, data=data, heap=heap), freshness)
        yield whole + wrap_payload(14, part)
