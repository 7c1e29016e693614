"""Values as the bytes of `drey.common.v1.Value`, without the protobuf library.

All fields that a scalar needs have a fixed width, so the messages of many values of one kind are
one numpy byte matrix: a template with the tags, columns written into it, and `tolist()` cutting it
into `bytes` at C speed. Strings, labelled enums and arrays take a path per value. Every fixed field
is written, zeros too, which proto3 readers accept.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drey_core.errors import Reason
from drey_core.extracts import EXTRACT_HEAD
from drey_core.times import is_suspect
from drey_core.values import (
    ARRAY,
    ELEMENT_DTYPE,
    EXTRACT,
    I8,
    STRING_ARRAY,
    U1,
    Columns,
    Kind,
    heap_mask,
    unpack_strings,
)

MAX_CHUNK_BYTES = 1 << 20
"""Bytes that a chunk of rows aims at, and above which an array or a string is sent in parts."""
MAX_VALUE_BYTES = 3_500_000
"""Most bytes that the values of one message may have, so that it stays under 4 MiB."""
MAX_ELEMENT_BYTES = MAX_VALUE_BYTES // 2
"""Largest string of an array, which no parts make smaller. A row can hold two of them; an array
with a larger one is sent as an error."""

Labels = Callable[[int], "tuple[bytes, ...] | None"]
"""Enum labels of a channel by its number; None or empty where they are not known."""

LEN_WIRE_TYPE = 2
_PART_FIELD = 9
_MAX_ONE_BYTE = 126
"""Greatest EPICS status or severity whose number plus one is one byte as a varint."""

# Field numbers of `Value.data` by kind.
_SCALAR_FIELD: dict[int, int] = {
    Kind.BOOL: 18,
    Kind.INT8: 19,
    Kind.INT16: 20,
    Kind.INT32: 11,
    Kind.INT64: 15,
    Kind.UINT8: 21,
    Kind.UINT16: 22,
    Kind.UINT32: 23,
    Kind.UINT64: 16,
    Kind.FLOAT32: 13,
    Kind.FLOAT64: 10,
}
_ENUM_FIELD = 12
_STRING_FIELD = 14
_RAW_STRING_FIELD = 17
_UNSENT_FIELD = 37
_EXTRACT_FIELD = 43
_ARRAY_FIELD: dict[int, int] = {
    Kind.FLOAT64: 24,
    Kind.FLOAT32: 25,
    Kind.INT32: 26,
    Kind.INT16: 27,
    Kind.INT8: 28,
    Kind.UINT8: 29,
    Kind.UINT16: 30,
    Kind.UINT32: 31,
    Kind.INT64: 32,
    Kind.UINT64: 33,
    Kind.BOOL: 34,
    Kind.ENUM: 35,
    Kind.STRING: 36,
}

# How a scalar's bits lie on the wire: (wire type, numpy type).
_WIRE: dict[int, tuple[int, str]] = {
    **dict.fromkeys((Kind.FLOAT64, Kind.INT64, Kind.UINT64), (1, "<u8")),
    **dict.fromkeys(
        (Kind.FLOAT32, Kind.INT8, Kind.INT16, Kind.INT32, Kind.UINT8, Kind.UINT16, Kind.UINT32),
        (5, "<u4"),
    ),
    Kind.BOOL: (0, "u1"),
}

# How array elements lie on the wire.
_ELEMENT_WIRE: dict[int, str] = {
    Kind.INT8: "<i4",
    Kind.INT16: "<i4",
    Kind.UINT16: "<u4",
    Kind.ENUM: "<u4",
}

ABSENT_CODE = -1
"""Template code of "this row has no such value"."""
SLOW_CODE = 255
"""Template code of values that take the path per row: strings, enums, arrays, odd statuses."""


def encode_varint(number: int) -> bytes:
    """`number` (not negative) as a protobuf varint."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field_tag(field: int, wire_type: int) -> bytes:
    return encode_varint(field << 3 | wire_type)


_LEN_HEADS = [
    [
        _field_tag(field, LEN_WIRE_TYPE) + encode_varint(length) if field else b""
        for length in range(256)
    ]
    for field in range(16)
]


def wrap_payload(field_number: int, payload: bytes) -> bytes:
    """`payload` as a length-delimited field: a message, string or bytes inside another message."""
    if len(payload) < 256 and field_number < 16:
        return _LEN_HEADS[field_number][len(payload)] + payload
    return _field_tag(field_number, LEN_WIRE_TYPE) + encode_varint(len(payload)) + payload


class _Template:
    """The fixed-width encoding of values of one kind: constant bytes and where columns go."""

    def __init__(self, kind: int) -> None:
        names: list[str] = []
        formats: list[str] = []
        offsets: list[int] = []
        constant = bytearray()

        def add_field(name: str, tag: bytes, dtype: str) -> None:
            constant.extend(tag)
            names.append(name)
            formats.append(dtype)
            offsets.append(len(constant))
            constant.extend(bytes(np.dtype(dtype).itemsize))

        add_field("severity", _field_tag(1, 0), "u1")
        add_field("status", _field_tag(2, 0), "u1")
        add_field("source_time", _field_tag(3, 1), "<i8")
        add_field("receive_time", _field_tag(4, 1), "<i8")
        add_field("state", _field_tag(5, 0), "u1")
        add_field("origin", _field_tag(6, 0), "u1")
        add_field("freshness", _field_tag(7, 0), "u1")
        add_field("suspect", _field_tag(8, 0), "u1")
        self.has_data = kind in _SCALAR_FIELD
        self.is_bool = kind == Kind.BOOL
        if self.has_data:
            wire_type, dtype = _WIRE[kind]
            add_field("data", _field_tag(_SCALAR_FIELD[kind], wire_type), dtype)
        self.constant = bytes(constant)
        self.size = len(constant)
        self.dtype = np.dtype(
            {"names": names, "formats": formats, "offsets": offsets, "itemsize": self.size}
        )

    def write_rows(self, matrix: U1, start: int, source: ValueSource, rows: I8 | slice) -> None:
        """Fill columns `start` to `start + size` of a matrix of bytes with the values of `rows`."""
        matrix[:, start : start + self.size] = np.frombuffer(self.constant, np.uint8)
        view: NDArray[Any] = np.ndarray(
            len(matrix), self.dtype, matrix.data, start, strides=(matrix.strides[0],)
        )
        columns = source.columns
        view["severity"] = source.severity[rows]
        view["status"] = source.status[rows]
        view["source_time"] = columns.source_time[rows]
        view["receive_time"] = columns.receive_time[rows]
        view["state"] = columns.state[rows]
        view["origin"] = columns.origin[rows]
        view["freshness"] = source.freshness[rows] if source.per_row else source.freshness
        view["suspect"] = source.suspect[rows]
        if self.has_data:
            # Casting drops the upper half, which only repeats the sign of shorter integers.
            data = columns.data[rows]
            view["data"] = data != 0 if self.is_bool else data


TEMPLATES: dict[int, _Template] = {kind: _Template(kind) for kind in (0, *_SCALAR_FIELD)}


class ValueSource:
    """Columns of one role, with what the encoding needs beside them."""

    def __init__(
        self, columns: Columns, freshness: int | U1, present: NDArray[np.bool_] | None
    ) -> None:
        self.columns = columns
        self.freshness = np.asarray(freshness, np.uint8)
        self.per_row = self.freshness.ndim > 0
        has_value = columns.kind != Kind.NONE
        self.severity = np.where(has_value, columns.severity.astype(np.uint16) + 1, 0)
        self.status = np.where(has_value, columns.status.astype(np.uint32) + 1, 0)
        self.suspect = is_suspect(columns.source_time, columns.receive_time)
        self.code = columns.kind.astype(np.int16)
        slow = (columns.kind >= Kind.ENUM) | (columns.status > _MAX_ONE_BYTE)
        slow |= columns.severity > _MAX_ONE_BYTE
        self.code[slow] = SLOW_CODE
        if present is not None:
            self.code[~present] = ABSENT_CODE

    def encode_heads(self, rows: I8) -> list[bytes]:
        """Everything but `data` of some rows."""
        template = TEMPLATES[0]
        matrix = np.empty((len(rows), template.size), np.uint8)
        template.write_rows(matrix, 0, self, rows)
        out: list[bytes] = cut_rows(matrix).tolist()
        odd = (self.status[rows] > _MAX_ONE_BYTE + 1) | (self.severity[rows] > _MAX_ONE_BYTE + 1)
        for index in np.flatnonzero(odd).tolist():
            out[index] = self.encode_head(int(rows[index]))
        return out

    def encode_head(self, row: int) -> bytes:
        """Everything but `data` of one row; any status."""
        fresh = int(self.freshness[row]) if self.per_row else int(self.freshness)
        columns = self.columns
        return b"".join(
            (
                b"\x08",
                encode_varint(int(self.severity[row])),
                b"\x10",
                encode_varint(int(self.status[row])),
                struct.pack(
                    "<BqBqBBBBBBBB",
                    0x19,
                    int(columns.source_time[row]),
                    0x21,
                    int(columns.receive_time[row]),
                    0x28,
                    int(columns.state[row]),
                    0x30,
                    int(columns.origin[row]),
                    0x38,
                    fresh,
                    0x40,
                    int(self.suspect[row]),
                ),
            )
        )


class ValueEncoder:
    """Encodes the `data` of single values; keeps the encoded labels of enums."""

    def __init__(self) -> None:
        self._enums: dict[tuple[bytes, ...], dict[int, bytes]] = {}

    def data(self, columns: Columns, row: int, labels: Labels | None) -> bytes:
        """The field of `Value.data` of one row, of any kind; empty where there is no value.

        The `part` of an array too large for one message is the caller's business.
        """
        kind = int(columns.kind[row])
        if kind == Kind.NONE:
            return b""
        if kind == Kind.ENUM:
            known_labels = labels(int(columns.key[row])) if labels is not None else None
            return self._encode_enum(int(columns.data[row]), known_labels or ())
        if kind == Kind.STRING:
            return _string_data(columns.heap_bytes(row))
        if kind & EXTRACT:
            raw = columns.heap_bytes(row)
            return _extract_data(raw, _array_data(kind & ~EXTRACT, raw[EXTRACT_HEAD.size :]))
        if kind & ARRAY:
            return _array_data(kind, columns.heap_bytes(row))
        wire_type, dtype = _WIRE[kind]
        cell = columns.data[row : row + 1]
        bits: bytes = (cell != 0 if kind == Kind.BOOL else cell).astype(dtype).tobytes()
        return _field_tag(_SCALAR_FIELD[kind], wire_type) + bits

    def encode_many(self, columns: Columns, rows: I8, labels: Labels | None) -> list[bytes]:
        """As `data`, for some rows; enums without a detour, being the most frequent."""
        triples = zip(
            rows.tolist(),
            columns.kind[rows].tolist(),
            columns.data[rows].tolist(),
            columns.key[rows].tolist(),
            strict=True,
        )
        enum = int(Kind.ENUM)
        if labels is None:
            return [
                self._encode_enum(cell, ()) if kind == enum else self.data(columns, row, None)
                for row, kind, cell, _ in triples
            ]
        return [
            self._encode_enum(cell, labels(key) or ())
            if kind == enum
            else self.data(columns, row, labels)
            for row, kind, cell, key in triples
        ]

    def _encode_enum(self, index: int, labels: tuple[bytes, ...]) -> bytes:
        cache = self._enums.get(labels)
        if cache is None:
            if len(self._enums) > 10_000:
                self._enums.clear()
            cache = self._enums[labels] = {}
        encoded = cache.get(index)
        if encoded is None:
            encoded = cache[index] = _enum_data(index, labels)
        return encoded


def _enum_data(index: int, labels: tuple[bytes, ...]) -> bytes:
    payload = b"\x0d" + struct.pack("<I", index & 0xFFFF_FFFF)
    label = labels[index] if index < len(labels) else b""
    if label:
        payload += wrap_payload(2, label.decode(errors="replace").encode())
    return wrap_payload(_ENUM_FIELD, payload)


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _string_data(raw: bytes) -> bytes:
    return wrap_payload(_STRING_FIELD if _is_utf8(raw) else _RAW_STRING_FIELD, raw)


def _string_array(strings: Sequence[bytes], valid: bool) -> bytes:
    return wrap_payload(
        _ARRAY_FIELD[Kind.STRING], b"".join(wrap_payload(1 if valid else 2, s) for s in strings)
    )


def _array_data(kind: int, raw: bytes) -> bytes:
    """A numeric or string array from its heap bytes."""
    element = kind & ~ARRAY
    field = _ARRAY_FIELD[element]
    if element == Kind.STRING:
        strings = unpack_strings(raw)
        return _string_array(strings, all(map(_is_utf8, strings)))
    if element == Kind.UINT8:
        return wrap_payload(field, raw)
    if element == Kind.BOOL:
        raw = (np.frombuffer(raw, np.uint8) != 0).tobytes()
    wide = _ELEMENT_WIRE.get(element)
    if wide is not None:
        raw = np.frombuffer(raw, ELEMENT_DTYPE[element]).astype(wide).tobytes()
    return wrap_payload(field, wrap_payload(1, raw) if raw else b"")


def _extract_data(raw: bytes, elements: bytes) -> bytes:
    """The `data` field of an extract with these heap bytes, of which `elements` are sent."""
    total, decimation, step = EXTRACT_HEAD.unpack_from(raw)
    head = (
        b"\x08"
        + encode_varint(total)
        + b"\x10"
        + encode_varint(decimation)
        + b"\x18"
        + encode_varint(step)
    )
    return wrap_payload(_EXTRACT_FIELD, head + wrap_payload(4, elements))


def _array_parts(kind: int, raw: bytes, limit: int) -> Iterator[tuple[int, int, bytes]]:
    """(first element, total, `data` field) of the parts of a large array, each within `limit`.

    One string longer than `limit` is a part of its own.
    """
    element = kind & ~ARRAY
    if element != Kind.STRING:
        width = ELEMENT_DTYPE[element].itemsize
        wire_width = np.dtype(_ELEMENT_WIRE.get(element, ELEMENT_DTYPE[element])).itemsize
        step, total = max(limit // wire_width, 1), len(raw) // width
        for first in range(0, total, step):
            yield first, total, _array_data(kind, raw[first * width : (first + step) * width])
        return
    strings = unpack_strings(raw)
    valid, first = all(map(_is_utf8, strings)), 0
    while first < len(strings):
        end, size = first, 0
        while end < len(strings) and (end == first or size + len(strings[end]) + 6 <= limit):
            size += len(strings[end]) + 6
            end += 1
        yield first, len(strings), _string_array(strings[first:end], valid)
        first = end


def _string_parts(raw: bytes, limit: int) -> Iterator[tuple[int, int, bytes]]:
    """(first byte, total, `data` field) of the parts of a long string, each within `limit`.

    A valid string is cut between characters, so that each part is one too.
    """
    field, first = (_STRING_FIELD if _is_utf8(raw) else _RAW_STRING_FIELD), 0
    while first < len(raw):
        end = min(first + limit, len(raw))
        while field == _STRING_FIELD and end < len(raw) and raw[end] & 0xC0 == 0x80:
            end -= 1
        yield first, len(raw), wrap_payload(field, raw[first:end])
        first = end


def _unsent_data(name: str, size: int) -> bytes:
    """The `data` field that says that a value, although there is one, cannot be sent."""
    text = (
        f"a string within the array of {name} has {size} bytes, more than fit into one message;"
        " have the IOC serve it as a PV of its own"
    )
    return wrap_payload(
        _UNSENT_FIELD,
        b"\x08" + encode_varint(Reason.VALUE_TOO_LARGE) + wrap_payload(3, text.encode()),
    )


def value_parts(
    name: str, row: int, source: ValueSource, limit: int, labels: Labels | None
) -> Iterator[bytes]:
    """One value of a PV as `Value` messages: one, or its parts, each of about `limit` bytes.

    Any value can be given, and none raises: arrays and strings are split, and an array with a
    string above `MAX_ELEMENT_BYTES`, which no split makes small enough, is an error of this value.
    """
    columns, head = source.columns, source.encode_head(row)
    kind = int(columns.kind[row])
    raw = columns.heap_bytes(row) if heap_mask(columns.kind[row : row + 1])[0] else b""
    elements = raw[EXTRACT_HEAD.size :] if kind & EXTRACT else raw
    is_texts = kind & ~EXTRACT == STRING_ARRAY
    longest = max(map(len, unpack_strings(elements)), default=0) if is_texts else 0
    if longest > MAX_ELEMENT_BYTES:
        yield head + _unsent_data(name, longest)
        return
    whole = ValueEncoder().data(columns, row, labels)
    if len(whole) <= limit:
        yield head + whole
        return
    if kind & ARRAY:
        pieces = _array_parts(kind & ~EXTRACT, elements, limit)
    else:
        pieces = _string_parts(raw, limit)
    for first, total, data in pieces:
        part = b"\x08" + encode_varint(first) + b"\x10" + encode_varint(total)
        if kind & EXTRACT:
            data = _extract_data(raw, data)
        yield head + wrap_payload(_PART_FIELD, part) + data


def cut_rows(matrix: U1) -> NDArray[Any]:
    """The rows of a contiguous matrix of bytes as `bytes` objects."""
    if matrix.shape[1] == 0:
        return object_array([b""] * len(matrix))
    return object_array(matrix.view(f"V{matrix.shape[1]}")[:, 0].tolist())


def object_array(items: list[bytes]) -> NDArray[Any]:
    out: NDArray[Any] = np.fromiter(items, object, len(items))
    return out


def equal_groups(codes: NDArray[Any]) -> Iterator[I8 | slice]:
    """Rows of equal code; one slice of everything where there is only one code."""
    if (codes == codes[0]).all():
        yield slice(None)
        return
    order = np.argsort(codes, kind="stable")
    edges = np.flatnonzero(np.diff(codes[order])) + 1
    yield from np.split(order, edges)


def encode_values(
    columns: Columns, freshness: int | U1 = 0, *, labels: Labels | None = None
) -> list[bytes]:
    """Each row as the bytes of a `Value` message, to be wrapped into messages other than PvRow.

    Scalars at the speed of `RowEncoder`; arrays whole, whatever their size.
    """
    if len(columns) == 0:
        return []
    source, encoder = ValueSource(columns, freshness, None), ValueEncoder()
    every, out = np.arange(len(columns)), np.empty(len(columns), object)
    for group in equal_groups(source.code):
        rows = every[group]
        kind = int(source.code[rows[0]])
        if kind == SLOW_CODE:
            data = encoder.encode_many(columns, rows, labels)
            out[rows] = object_array(list(map(add, source.encode_heads(rows), data)))
        else:
            template = TEMPLATES[kind]
            matrix = np.empty((len(rows), template.size), np.uint8)
            template.write_rows(matrix, 0, source, rows)
            out[rows] = cut_rows(matrix)
    encoded: list[bytes] = out.tolist()
    return encoded


def encode_values_in_parts(
    columns: Columns, names: Sequence[str], limit: int, *, labels: Labels | None = None
) -> tuple[list[bytes], dict[int, list[bytes]]]:
    """As `encode_values`, with each value above `limit` bytes cut: (first parts, the rest by row).

    `names[i]` is the PV of row i, for what cannot be sent in any parts (see `value_parts`).
    """
    encoded = encode_values(columns, labels=labels)
    rest: dict[int, list[bytes]] = {}
    for row, whole in enumerate(encoded):
        if len(whole) > limit:
            source = ValueSource(columns, 0, None)
            encoded[row], *rest[row] = value_parts(names[row], row, source, limit, labels)
    return encoded, rest


# --- chunks -------------------------------------------------------------------------------------
