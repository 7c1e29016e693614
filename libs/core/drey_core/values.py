"""Kinds of values and the columns in which they travel.

`Columns` is the one in-memory shape of "some values of some channels": what a Channel Access
table drains, what a batch on the bus carries, what a read returns and what a write takes.

The `data` column holds, for scalars, the value's own bits in a `uint64` (integers sign- or
zero-extended, `float32` bits in the low half), so that NaN payloads, -0.0 and 64-bit integers
pass unchanged. Strings and arrays lie in the heap, and `data` holds `length << 32 | offset`,
both in bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

U1 = NDArray[np.uint8]
I4 = NDArray[np.int32]
I8 = NDArray[np.int64]
U8 = NDArray[np.uint64]


class Kind(IntEnum):
    """What a value is. `ARRAY` is or-ed to an element kind: `Kind.FLOAT64 | ARRAY`."""

    NONE = 0
    BOOL = 1
    INT8 = 2
    INT16 = 3
    INT32 = 4
    INT64 = 5
    UINT8 = 6
    UINT16 = 7
    UINT32 = 8
    UINT64 = 9
    FLOAT32 = 10
    FLOAT64 = 11
    ENUM = 12
    STRING = 13


ARRAY = 0x40
"""Bit that makes an array of an element kind."""

EXTRACT = 0x80
"""Added to the kind of an array where it is not the array but some of its elements (`extracts`)."""

KIND_NONE = int(Kind.NONE)
STRING_ARRAY = int(Kind.STRING) | ARRAY


class State(IntEnum):
    """Connection state of a channel. Absent, disconnected and zero are three things.

    UNSUPPORTED: of a protocol that this version does not speak, so nobody has looked for it.
    """

    ABSENT = 0
    NEVER_CONNECTED = 1
    DISCONNECTED = 2
    CONNECTED = 3
    UNSUPPORTED = 4


class Origin(IntEnum):
    """How a value was obtained."""

    NONE = 0
    MONITOR = 1
    READ = 2
    IMPORT = 3


class Severity(IntEnum):
    """EPICS alarm severity, numbered as EPICS numbers it."""

    NO_ALARM = 0
    MINOR = 1
    MAJOR = 2
    INVALID = 3


ELEMENT_DTYPE: dict[int, np.dtype[Any]] = {
    Kind.BOOL: np.dtype("u1"),
    Kind.INT8: np.dtype("i1"),
    Kind.INT16: np.dtype("<i2"),
    Kind.INT32: np.dtype("<i4"),
    Kind.INT64: np.dtype("<i8"),
    Kind.UINT8: np.dtype("u1"),
    Kind.UINT16: np.dtype("<u2"),
    Kind.UINT32: np.dtype("<u4"),
    Kind.UINT64: np.dtype("<u8"),
    Kind.FLOAT32: np.dtype("<f4"),
    Kind.FLOAT64: np.dtype("<f8"),
    Kind.ENUM: np.dtype("<u2"),
}
"""Layout of one array element in the heap, little-endian. String arrays: see `pack_strings`."""

_KIND_OF_DTYPE = {
    "b1": Kind.BOOL,
    "i1": Kind.INT8,
    "i2": Kind.INT16,
    "i4": Kind.INT32,
    "i8": Kind.INT64,
    "u1": Kind.UINT8,
    "u2": Kind.UINT16,
    "u4": Kind.UINT32,
    "u8": Kind.UINT64,
    "f4": Kind.FLOAT32,
    "f8": Kind.FLOAT64,
}

_FLOATS = (Kind.FLOAT32, Kind.FLOAT64)
_SIGNED = (Kind.INT8, Kind.INT16, Kind.INT32, Kind.INT64)


def heap_mask(kind: U1) -> NDArray[np.bool_]:
    """Which of `kind` (shape any) keep their data in the heap: strings and arrays."""
    mask: NDArray[np.bool_] = (kind & ARRAY != 0) | (kind == Kind.STRING)
    return mask


_KINDS = np.zeros(256, bool)
_KINDS[[*Kind, *(kind | ARRAY for kind in Kind if kind != Kind.NONE)]] = True
_ELEMENT_BYTES = np.ones(256, np.uint64)
for _kind, _dtype in ELEMENT_DTYPE.items():
    _ELEMENT_BYTES[_kind | ARRAY] = _dtype.itemsize


def why_malformed(kind: U1, state: U1, origin: U1, severity: U1, data: U8, heap: bytes) -> str:
    """What is wrong with rows that came from outside, shapes (n,); empty when they can be used.

    Heap values must lie within the heap and share no byte that would make it go further.
    """
    if not _KINDS[kind].all():
        return "a kind that does not exist"
    if state.max(initial=0) > max(State) or origin.max(initial=0) > max(Origin):
        return "a state or an origin that does not exist"
    if severity.max(initial=0) > max(Severity):
        return "a severity that does not exist"
    in_heap = np.flatnonzero(heap_mask(kind))
    cells = data[in_heap]
    lengths = cells >> _LENGTH_SHIFT
    ends = (cells & _OFFSET) + lengths
    if int(ends.max(initial=0)) > len(heap) or int(lengths.sum()) > len(heap):
        return "strings or arrays beyond its heap"
    if (lengths % _ELEMENT_BYTES[kind[in_heap]]).any():
        return "an array that ends within an element"
    for raw in unpack_heap(cells[kind[in_heap] == STRING_ARRAY], heap):
        try:
            unpack_strings(raw)
        except ValueError as error:
            return str(error)
    return ""


HEAP_LIMIT = 0xFFFF_FFFF
"""Most bytes of a heap: an offset is 32 bits of a `data` cell."""
_OFFSET = np.uint64(HEAP_LIMIT)
_LENGTH_SHIFT = np.uint64(32)


def heap_ref(offset: int, length: int) -> int:
    """The `data` cell of a value whose `length` bytes start at `offset` of the heap."""
    return length << 32 | offset


def heap_byte_lengths(cells: U8) -> I8:
    """How many bytes of the heap the `data` cells of strings and arrays refer to; any shape."""
    return (cells >> _LENGTH_SHIFT).astype(np.int64)


def heap_slice(cell: int) -> slice:
    """Where in the heap the bytes are to which a `data` cell refers."""
    offset = cell & HEAP_LIMIT
    return slice(offset, offset + (cell >> 32))


def pack_heap(values: Sequence[bytes]) -> tuple[U8, bytes]:
    """(`data` cells, heap) of values laid out in their order without gaps."""
    lengths = np.fromiter(map(len, values), np.uint64, len(values))
    return lengths << _LENGTH_SHIFT | (np.cumsum(lengths) - lengths), b"".join(values)


def unpack_heap(cells: U8, heap: bytes) -> list[bytes]:
    """The bytes to which `cells`, of strings and arrays, refer."""
    return [
        heap[(cell & HEAP_LIMIT) : (cell & HEAP_LIMIT) + (cell >> 32)] for cell in cells.tolist()
    ]


def pack_strings(strings: Sequence[bytes]) -> bytes:
    """A string array for the heap: count and lengths as uint32, then the bytes, no padding."""
    head = struct.pack(f"<{len(strings) + 1}I", len(strings), *map(len, strings))
    return head + b"".join(strings)


def unpack_strings(raw: bytes) -> list[bytes]:
    """Inverse of `pack_strings`. Raises `ValueError` when `raw` is not such an array."""
    if len(raw) < 4:
        raise ValueError("string array shorter than its count")
    (count,) = struct.unpack_from("<I", raw)
    if len(raw) < 4 + 4 * count:
        raise ValueError("string array shorter than its lengths")
    lengths = struct.unpack_from(f"<{count}I", raw, 4)
    out, offset = [], 4 + 4 * count
    for length in lengths:
        out.append(raw[offset : offset + length])
        offset += length
    if offset != len(raw):
        raise ValueError("string array does not end where its lengths say")
    return out


def scalar_bits(kind: int, value: float) -> int:
    """The `data` cell of one scalar of `kind` (not a string)."""
    if kind == Kind.FLOAT64:
        return int(np.float64(value).view(np.uint64))
    if kind == Kind.FLOAT32:
        return int(np.float32(value).view(np.uint32))
    return int(value) & 0xFFFF_FFFF_FFFF_FFFF


def bits_scalar(kind: int, bits: int) -> bool | int | float:
    """The scalar of `kind` (not a string) that `bits` hold."""
    if kind == Kind.FLOAT64:
        return float(np.uint64(bits).view(np.float64))
    if kind == Kind.FLOAT32:
        return float(np.uint32(bits & 0xFFFF_FFFF).view(np.float32))
    if kind == Kind.BOOL:
        return bool(bits)
    if kind in _SIGNED:
        return int(np.uint64(bits).view(np.int64))
    return int(bits)


def encode_value(value: object, kind: int | None = None) -> tuple[int, int | bytes]:
    """One Python or numpy value as (kind, data bits or heap bytes).

    `kind` says what it is; without it the kind follows from the value's type. Raises
    `TypeError` for what has no kind, `ValueError` or `OverflowError` for what does not fit.
    """
    if kind is None:
        kind = _guess_kind(value)
    if kind == Kind.STRING:
        return kind, value if isinstance(value, bytes) else str(value).encode()
    if kind == STRING_ARRAY:
        items = [v if isinstance(v, bytes) else str(v).encode() for v in _as_list(value)]
        return kind, pack_strings(items)
    if kind & ARRAY:
        return kind, np.asarray(value, dtype=ELEMENT_DTYPE[kind & ~ARRAY]).tobytes()
    if not isinstance(value, bool | int | float | np.generic):
        raise TypeError(f"{value!r} is not a scalar of kind {Kind(kind).name}")
    return kind, scalar_bits(kind, _fitting_integer(kind, value))


def _as_list(value: object) -> list[Any]:
    if isinstance(value, list | tuple | np.ndarray):
        return list(value)
    raise TypeError(f"{value!r} is not an array")


def _fitting_integer(kind: int, value: Any) -> float:
    """`value`, checked to be representable as an integer of `kind` where `kind` is one."""
    if kind in _FLOATS:
        return float(value) if not isinstance(value, np.generic) else value  # type: ignore[return-value]
    info = np.iinfo(ELEMENT_DTYPE[kind])
    number = int(value)
    if not info.min <= number <= info.max:
        raise OverflowError(f"{number} does not fit {Kind(kind).name}")
    return number


def _guess_kind(value: object) -> int:
    if isinstance(value, bytes | str):
        return Kind.STRING
    if isinstance(value, bool):
        return Kind.BOOL
    if isinstance(value, int):
        return Kind.INT64
    if isinstance(value, float) and not isinstance(value, np.generic):
        return Kind.FLOAT64
    if isinstance(value, np.generic):
        return _KIND_OF_DTYPE[value.dtype.str[1:]]
    if isinstance(value, np.ndarray) and value.dtype.str[1:] in _KIND_OF_DTYPE:
        return _KIND_OF_DTYPE[value.dtype.str[1:]] | ARRAY
    if isinstance(value, list | tuple):
        if value and isinstance(value[0], str | bytes):
            return STRING_ARRAY
        array = np.asarray(value, dtype=None if value else "f8")
        return _KIND_OF_DTYPE[array.dtype.str[1:]] | ARRAY
    raise TypeError(f"no EPICS kind for {type(value).__name__}")


def decode_value(kind: int, data: int, heap: bytes | memoryview) -> Any:
    """One cell as a Python scalar, `bytes` (strings), numpy array, list of bytes, or None."""
    if kind == KIND_NONE:
        return None
    if not (kind & ARRAY or kind == Kind.STRING):
        return bits_scalar(kind, data)
    raw = bytes(heap[heap_slice(data)])
    if kind == Kind.STRING:
        return raw
    if kind == STRING_ARRAY:
        return unpack_strings(raw)
    return np.frombuffer(raw, dtype=ELEMENT_DTYPE[kind & ~ARRAY])


@dataclass(frozen=True, slots=True)
class Columns:
    """Values of n channels, one column each. All arrays have shape (n,).

    `key` is what identifies the row for the user of the columns: a channel number on the bus
    and in pages, a table slot in `drey_ca`. Times are nanoseconds since 1970 UTC; 0 means
    there is none. `merged` counts the updates that this one replaced unseen. Arrays may be
    views; treat them as read-only.
    """

    key: I8
    kind: U1
    state: U1
    origin: U1
    severity: U1
    status: NDArray[np.uint16]
    source_time: I8
    receive_time: I8
    data: U8
    merged: NDArray[np.uint32]
    heap: bytes = b""

    def __len__(self) -> int:
        return len(self.key)

    @classmethod
    def empty_columns(cls, n: int = 0) -> Columns:
        """n rows of absent channels, key 0, writable."""
        return cls(
            key=np.zeros(n, np.int64),
            kind=np.zeros(n, np.uint8),
            state=np.zeros(n, np.uint8),
            origin=np.zeros(n, np.uint8),
            severity=np.zeros(n, np.uint8),
            status=np.zeros(n, np.uint16),
            source_time=np.zeros(n, np.int64),
            receive_time=np.zeros(n, np.int64),
            data=np.zeros(n, np.uint64),
            merged=np.zeros(n, np.uint32),
        )

    @classmethod
    def from_values(cls, key: I8, values: Sequence[object], kinds: Sequence[int | None]) -> Columns:
        """Columns with `kind`, `data` and heap filled from Python values; for the edge only."""
        out = cls.empty_columns(len(values))
        heap = bytearray()
        for i, (value, kind) in enumerate(zip(values, kinds, strict=True)):
            code, data = encode_value(value, kind)
            out.kind[i] = code
            if isinstance(data, bytes):
                out.data[i] = heap_ref(len(heap), len(data))
                heap += data
            else:
                out.data[i] = data
        return replace(out, key=key, heap=bytes(heap))

    def take_rows(self, rows: NDArray[Any]) -> Columns:
        """The given rows (indices or mask), sharing this heap: no heap copy is made."""
        return Columns(
            self.key[rows],
            self.kind[rows],
            self.state[rows],
            self.origin[rows],
            self.severity[rows],
            self.status[rows],
            self.source_time[rows],
            self.receive_time[rows],
            self.data[rows],
            self.merged[rows],
            self.heap,
        )

    def with_key(self, key: I8) -> Columns:
        """The same values under other keys."""
        return replace(self, key=key)

    def heap_lengths(self) -> I8:
        """How many bytes of the heap each row takes; 0 for scalars."""
        return np.where(heap_mask(self.kind), heap_byte_lengths(self.data), 0)

    def heap_bytes(self, row: int) -> bytes:
        """The heap bytes of one row that is a string or an array."""
        return self.heap[heap_slice(int(self.data[row]))]

    def compact_heap(self) -> Columns:
        """The same rows, their heap holding what they refer to and nothing else."""
        if not self.heap:
            return self
        rows = np.flatnonzero(heap_mask(self.kind))
        cells = self.data[rows]
        if int((cells >> _LENGTH_SHIFT).sum()) == len(self.heap):
            return self
        data = self.data.copy()
        data[rows], heap = pack_heap(unpack_heap(cells, self.heap))
        return replace(self, data=data, heap=heap)

    def value(self, row: int) -> Any:
        """One value as `decode_value` gives it; for the edge only."""
        return decode_value(int(self.kind[row]), int(self.data[row]), self.heap)

    @classmethod
    def concat_columns(cls, parts: Sequence[Columns]) -> Columns:
        """All rows of `parts` in order, heaps joined and references moved."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return cls.empty_columns()
        datas, offset = [], 0
        for part in parts:
            moved = np.where(heap_mask(part.kind), part.data + np.uint64(offset), part.data)
            datas.append(moved)
            offset += len(part.heap)
        if offset > HEAP_LIMIT:
            raise ValueError("a heap cannot exceed 4 GiB")

        def join_arrays(name: str) -> Any:
            return np.concatenate([getattr(p, name) for p in parts])

        return cls(
            join_arrays("key"),
            join_arrays("kind"),
            join_arrays("state"),
            join_arrays("origin"),
            join_arrays("severity"),
            join_arrays("status"),
            join_arrays("source_time"),
            join_arrays("receive_time"),
            np.concatenate(datas),
            join_arrays("merged"),
            b"".join(p.heap for p in parts),
        )


def numeric_mask(kind: U1) -> NDArray[np.bool_]:
    """Which are scalars that compare as numbers: everything but strings, enums and arrays."""
    mask: NDArray[np.bool_] = (kind != KIND_NONE) & (kind < Kind.ENUM)
    return mask


def as_float64(kind: U1, data: U8) -> NDArray[np.float64]:
    """Numeric scalars as float64 (rounded for integers beyond 2**53); others as NaN."""
    data = np.ascontiguousarray(data)
    f8 = kind == Kind.FLOAT64
    if f8.all():
        return data.view(np.float64).copy()
    out = np.full(data.shape, np.nan)
    out[f8] = data[f8].view(np.float64)
    f4 = kind == Kind.FLOAT32
    if f4.any():
        with np.errstate(invalid="ignore"):  # signalling NaNs
            out[f4] = data[f4].astype(np.uint32).view(np.float32)
    signed = (kind >= Kind.INT8) & (kind <= Kind.INT64)
    if signed.any():
        out[signed] = data[signed].view(np.int64)
    whole = (kind == Kind.BOOL) | (kind == Kind.ENUM)
    unsigned = ((kind >= Kind.UINT8) & (kind <= Kind.UINT64)) | whole
    if unsigned.any():
        out[unsigned] = data[unsigned]
    return out
