"""Rows of values as protobuf bytes, without the protobuf library and without Python per scalar.

The rows of equal types are one byte matrix, made of the templates of `wire_values`. The bytes of a
row are the field `rows = 1` of its message, tag and length included. Field 1 is `rows` in RowChunk,
BaselineChunk, Diff and GetValuesResponse, so rows joined are such a message.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drey_core.values import (
    I8,
    U1,
    Columns,
)
from drey_core.wire_values import (
    ABSENT_CODE,
    LEN_WIRE_TYPE,
    MAX_CHUNK_BYTES,
    SLOW_CODE,
    TEMPLATES,
    Labels,
    ValueEncoder,
    ValueSource,
    cut_rows,
    encode_varint,
    equal_groups,
    object_array,
    value_parts,
    wrap_payload,
)

_FEW = 4096
"""Rows that are joined before it is known whether they fit."""

Mask = NDArray[np.bool_]

_ROW_TAG = b"\x0a"
_NAME_TAG = b"\x0a"
_NUMBER_TAG = b"\x11"
_SETPOINT_FIELD = 3
_READBACK_FIELD = 4

_HEADS = np.empty(4096, object)
_HEADS[:] = [_ROW_TAG + encode_varint(length) for length in range(4096)]


class RowEncoder:
    """Encodes rows of a fixed list of PVs, keeping what does not change: names and numbers.

    Not thread-safe. Make a new one when the catalog changes.
    """

    def __init__(self, names: Sequence[str], numbers: I8) -> None:
        """`names[i]` and `numbers[i]` belong to the PV with index i."""
        self._names = names
        encoded = [name.encode(errors="replace") for name in names]
        tails = np.asarray(numbers, "<u8").tobytes()
        parts = [
            b"".join(
                (_NAME_TAG, encode_varint(len(name)), name, _NUMBER_TAG, tails[offset : offset + 8])
            )
            for name, offset in zip(encoded, range(0, 8 * len(encoded), 8), strict=True)
        ]
        self._parts = object_array(parts)
        self._part_sizes = np.fromiter(map(len, parts), np.int64, len(parts))
        # Tag, length, name and number of a row whose values take so many bytes. The types of a PV
        # rarely change, so the one last used is nearly always right.
        self._prefixes = np.empty(len(parts), object)
        self._prefix_for = np.full(len(parts), -1, np.int64)
        self._values = ValueEncoder()

    def encode_rows(
        self,
        pv_index: I8,
        setpoint: Columns | None,
        readback: Columns | None,
        freshness: int | U1 = 0,
        *,
        sp_present: Mask | None = None,
        rb_present: Mask | None = None,
        labels: Labels | None = None,
    ) -> list[bytes]:
        """One `bytes` for each row: the field `rows = 1` with the PvRow of PV `pv_index[i]`.

        Row i of `setpoint` and `readback` (keyed by channel number, which `labels` is asked for)
        belongs to `pv_index[i]`; where the mask is False, or the columns are None, the row has no
        such value. `freshness` is one number for all, or shape (n,). A row with an array or a
        string above `MAX_CHUNK_BYTES` is several row fields in one `bytes`, which `chunk` takes
        apart. No value raises: one that cannot be sent is an error in its row (see `value_parts`).
        """
        n = len(pv_index)
        sources: list[tuple[int, ValueSource]] = []
        if setpoint is not None:
            sources.append((_SETPOINT_FIELD, ValueSource(setpoint, freshness, sp_present)))
        if readback is not None:
            sources.append((_READBACK_FIELD, ValueSource(readback, freshness, rb_present)))
        if not sources or n == 0:
            return self._prefix_rows(pv_index, [b""] * n, np.zeros(n, np.int64))
        bodies = np.empty(n, object)
        sizes = np.zeros(n, np.int64)
        split = self._encode_bodies(sources, bodies, sizes, labels)
        out = self._prefix_rows(pv_index, bodies.tolist(), sizes)
        for row in split:
            out[row] = self._split_row(int(pv_index[row]), row, sources, labels)
        return out

    def _encode_bodies(
        self,
        sources: list[tuple[int, ValueSource]],
        bodies: NDArray[Any],
        sizes: I8,
        labels: Labels | None,
    ) -> list[int]:
        """Fill the encoded values of all rows; the rows that have to be split instead."""
        codes = np.zeros(len(bodies), np.int32)
        for _, source in sources:
            codes = codes << 9 | (source.code + 1)
        slow_rows = np.zeros(0, np.int64)
        for rows in equal_groups(codes):
            first = 0 if isinstance(rows, slice) else int(rows[0])
            kinds = [int(source.code[first]) for _, source in sources]
            if SLOW_CODE in kinds:
                slow = np.arange(len(bodies)) if isinstance(rows, slice) else rows
                slow_rows = np.concatenate((slow_rows, slow))
                continue
            matrix = _row_matrix([field for field, _ in sources], kinds, sources, rows, len(bodies))
            bodies[rows] = cut_rows(matrix)
            sizes[rows] = matrix.shape[1]
        return self._encode_slow(sources, slow_rows, bodies, sizes, labels)

    def _encode_slow(
        self,
        sources: list[tuple[int, ValueSource]],
        rows: I8,
        bodies: NDArray[Any],
        sizes: I8,
        labels: Labels | None,
    ) -> list[int]:
        if len(rows) == 0:
            return []
        values = [self._values_of(field, source, rows, labels) for field, source in sources]
        joined = list(map(add, *values)) if len(values) == 2 else values[0]
        split = [r for r, body in zip(rows.tolist(), joined, strict=True) if _is_large(body)]
        bodies[rows] = object_array(joined)
        sizes[rows] = np.fromiter(map(len, joined), np.int64, len(joined))
        bodies[split] = b""
        sizes[split] = 0
        return split

    def _values_of(
        self, field: int, source: ValueSource, rows: I8, labels: Labels | None
    ) -> list[bytes]:
        """The setpoint or readback field of some rows, of any kind."""
        out = np.empty(len(rows), object)
        codes = source.code[rows]
        for group in equal_groups(codes):
            chosen = rows[group]
            kind = int(source.code[chosen[0]])
            if kind == SLOW_CODE:
                values = self._values.encode_many(source.columns, chosen, labels)
                out[group] = object_array(
                    list(
                        map(
                            wrap_payload,
                            repeat(field),
                            map(add, source.encode_heads(chosen), values),
                        )
                    )
                )
            else:
                out[group] = cut_rows(_row_matrix([field], [kind], [(field, source)], chosen, 0))
        encoded: list[bytes] = out.tolist()
        return encoded

    def _prefix_rows(self, pv_index: I8, bodies: list[bytes], sizes: I8) -> list[bytes]:
        # by row and not by PV: a PV may stand here twice, with other values of another size
        prefixes = self._prefixes[pv_index]
        stale = self._prefix_for[pv_index] != sizes
        if stale.any():
            index, size = pv_index[stale], sizes[stale]
            length = self._part_sizes[index] + size
            if int(length.max()) < len(_HEADS):
                heads = _HEADS[length].tolist()
            else:
                heads = [_ROW_TAG + encode_varint(n) for n in length.tolist()]
            prefixes[stale] = object_array(list(map(add, heads, self._parts[index].tolist())))
            self._prefixes[index] = prefixes[stale]
            self._prefix_for[index] = size
        return list(map(add, prefixes.tolist(), bodies))

    def _split_row(
        self, pv: int, row: int, sources: list[tuple[int, ValueSource]], labels: Labels | None
    ) -> bytes:
        """Row fields that together hold a row too large for one.

        The first holds both values, of a large array its first part; then follow the other parts
        of the setpoint, then those of the readback.
        """
        first, rest = b"", []
        limit = MAX_CHUNK_BYTES // len(sources)
        for field, source in sources:
            if source.code[row] == ABSENT_CODE:
                continue
            values = value_parts(self._names[pv], row, source, limit, labels)
            first += wrap_payload(field, next(values))
            rest += [wrap_payload(field, value) for value in values]
        name = self._parts[pv]
        return b"".join(wrap_payload(1, name + body) for body in (first, *rest))


def _is_large(body: bytes) -> bool:
    return len(body) > MAX_CHUNK_BYTES


def _row_matrix(
    fields: list[int],
    kinds: list[int],
    sources: list[tuple[int, ValueSource]],
    rows: I8 | slice,
    total: int,
) -> U1:
    """The values of rows of equal kinds, shape (m, bytes of a row)."""
    layout = [
        (index, field, TEMPLATES[kind])
        for index, (field, kind) in enumerate(zip(fields, kinds, strict=True))
        if kind != ABSENT_CODE
    ]
    width = sum(template.size + 2 for _, _, template in layout)
    matrix = np.empty((total if isinstance(rows, slice) else len(rows), width), np.uint8)
    start = 0
    for index, field, template in layout:
        matrix[:, start] = field << 3 | LEN_WIRE_TYPE
        matrix[:, start + 1] = template.size
        template.write_rows(matrix, start + 2, sources[index][1], rows)
        start += 2 + template.size
    return matrix


def chunk_rows(rows: Sequence[bytes], max_bytes: int = MAX_CHUNK_BYTES) -> Iterator[bytes]:
    """Rows as `RowEncoder.encode_rows` gives them, joined into messages of about `max_bytes`.

    A message exceeds `max_bytes` only by one row field that is larger in itself; rows that were
    split into parts are taken apart here.
    """
    if 0 < len(rows) <= _FEW:
        whole = [b"".join(rows)]
        if len(whole[0]) <= max_bytes:
            yield whole.pop()  # a generator that waits keeps what it names
            return
        whole.clear()
    sizes = np.fromiter(map(len, rows), np.int64, len(rows))
    ends = np.cumsum(sizes)
    first = 0
    while first < len(rows):
        begin = int(ends[first] - sizes[first])
        last = int(np.searchsorted(ends, begin + max_bytes, side="right"))
        if last > first:
            yield b"".join(rows[first:last])
            first = last
        else:
            yield from _row_fields(rows[first])
            first += 1


def _row_fields(item: bytes) -> Iterator[bytes]:
    """The row fields of which `item` consists."""
    offset = 0
    while offset < len(item):
        length, shift, cursor = 0, 0, offset + 1
        while True:
            byte = item[cursor]
            length |= (byte & 0x7F) << shift
            cursor, shift = cursor + 1, shift + 7
            if byte < 0x80:
                break
        yield item[offset : cursor + length]
        offset = cursor + length
