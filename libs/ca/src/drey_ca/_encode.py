"""Columns to what a channel's native type takes on the wire: losslessly or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drey_ca import _dbr as dbr
from drey_ca.eca import ECA, ECA_NORMAL
from drey_core.values import (
    ARRAY,
    ELEMENT_DTYPE,
    KIND_NONE,
    STRING_ARRAY,
    Columns,
    Kind,
    heap_mask,
    unpack_strings,
)

_NATIVE = ("S40", "<i2", "<f4", "<u2", "u1", "<i4", "<f8")
_CELL = {np.dtype("f4"): np.uint32, np.dtype("f8"): np.uint64}


@dataclass(frozen=True, slots=True)
class Wire:
    """n values ready to put: `code` is ECA_NORMAL where they are.

    Row i has `count[i]` elements of DBR type `basic[i]` in `blob[i]`, or, where that is None,
    one element in the low bytes of `cell[i]` (the host is little-endian, as CA's clients on
    every platform that `epicscorelibs` has wheels for).
    """

    code: NDArray[np.int32]
    basic: NDArray[np.int64]
    count: NDArray[np.int64]
    cell: NDArray[np.uint64]
    blob: list[bytes | None]


def wire_array(wire: Wire, row: int) -> tuple[int, int, NDArray[Any]]:
    """ECA code, DBR type and elements of one row; no elements unless ECA_NORMAL."""
    code, basic, blob = int(wire.code[row]), int(wire.basic[row]), wire.blob[row]
    element = np.dtype(_NATIVE[basic])
    if code != ECA_NORMAL:
        return code, basic, np.zeros(0, element)
    raw = wire.cell[row].tobytes()[: element.itemsize] if blob is None else blob
    return code, basic, np.frombuffer(raw, element)


def convert_array(
    source: NDArray[Any], target: np.dtype[Any]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """`source` as `target`, and which elements fit exactly.

    Floats narrow only if the way back gives the same bits, NaN payload and sign of zero
    included; floats become integers, and integers floats, only if numerically equal.
    """
    with np.errstate(all="ignore"):
        if source.dtype == target:
            return source, np.ones(source.shape, np.bool_)
        if source.dtype.kind == "f" and target.kind == "f":
            out = source.astype(target)
            bits = _CELL[source.dtype]
            same = out.astype(source.dtype).view(bits) == source.view(bits)
            return out, same | bool(target.itemsize > source.dtype.itemsize)
        if source.dtype.kind == "f":
            return _float_to_int(source, target)
        if target.kind == "f":
            return _int_to_float(source, target)
        limits = np.iinfo(target)
        fits = (source >= min(limits.min, 0)) if source.dtype.kind == "i" else True
        return source.astype(target), fits & (source <= limits.max)


def _float_to_int(
    source: NDArray[Any], target: np.dtype[Any]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    limits = np.iinfo(target)
    fits = (source >= limits.min) & (source <= limits.max) & (np.floor(source) == source)
    return np.where(fits, source, 0).astype(target), fits


def _int_to_float(
    source: NDArray[Any], target: np.dtype[Any]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    out = source.astype(target)
    wide = out.astype(np.float64)
    # 2**63 and 2**64 themselves come from rounding up, and would overflow on the way back.
    bound = 2.0**63 if source.dtype.kind == "i" else 2.0**64
    inside = wide < bound
    back = np.where(inside, wide, 0).astype(source.dtype)
    return out, inside & (back == source)


def encode_value(
    values: Columns,
    native: NDArray[np.int64],
    capacity: NDArray[np.int64],
    long_string: NDArray[np.bool_],
) -> Wire:
    """Encode row i of `values` for a channel of DBR type `native[i]` with `capacity[i]` elements.

    Rows with native type -1 (not connected) are left as ECA_DISCONN.
    """
    n = len(values)
    wire = Wire(
        np.where(native < 0, ECA.DISCONN, ECA_NORMAL).astype(np.int32),
        np.maximum(native, 0),
        np.ones(n, np.int64),
        np.zeros(n, np.uint64),
        [None] * n,
    )
    in_heap = heap_mask(values.kind)
    usable = native >= 0
    for kind in np.unique(values.kind[~in_heap & usable]).tolist():
        for basic in range(7):
            rows = np.flatnonzero((values.kind == kind) & (native == basic))
            if len(rows):
                _encode_scalars(wire, values, rows, kind, basic)
    for i in np.flatnonzero(in_heap & usable).tolist():
        _encode_heap(wire, values, i, int(capacity[i]), bool(long_string[i]))
    return wire


def _encode_scalars(
    wire: Wire, values: Columns, rows: NDArray[np.int64], kind: int, basic: int
) -> None:
    if kind == KIND_NONE or basic == dbr.DBR_STRING:
        wire.code[rows] = ECA.BADTYPE
        return
    element = ELEMENT_DTYPE[kind]
    cells = np.ascontiguousarray(values.data[rows])
    source = cells.view("u1").reshape(-1, 8)[:, : element.itemsize]
    target = np.dtype(_NATIVE[basic])
    out, fits = convert_array(np.ascontiguousarray(source).view(element).reshape(-1), target)
    wire.code[rows[~fits]] = ECA.NOCONVERT
    padded = np.zeros((len(rows), 8), np.uint8)
    padded[:, : target.itemsize] = np.ascontiguousarray(out).view("u1").reshape(len(rows), -1)
    wire.cell[rows] = padded.view(np.uint64).reshape(-1)


def _encode_heap(wire: Wire, values: Columns, i: int, capacity: int, long_string: bool) -> None:
    kind, raw = int(values.kind[i]), values.heap_bytes(i)
    if kind == Kind.STRING:
        wire.code[i] = _encode_string(wire, i, raw, capacity, long_string)
    elif kind == STRING_ARRAY:
        wire.code[i] = _encode_strings(wire, i, raw, capacity)
    else:
        wire.code[i] = _encode_array(wire, i, np.frombuffer(raw, ELEMENT_DTYPE[kind & ~ARRAY]))
        if wire.code[i] == ECA_NORMAL and wire.count[i] > capacity:
            wire.code[i] = ECA.BADCOUNT


def _encode_string(wire: Wire, i: int, raw: bytes, capacity: int, long_string: bool) -> int:
    if b"\0" in raw:
        return ECA.BADSTR
    if long_string:
        wire.blob[i], wire.count[i] = raw + b"\0", len(raw) + 1
        return ECA.BADCOUNT if len(raw) >= capacity else ECA.NORMAL
    if wire.basic[i] not in (dbr.DBR_STRING, dbr.DBR_ENUM):
        return ECA.BADTYPE
    if len(raw) >= 40:
        return ECA.BADSTR
    # A string to an enum goes as a string: the IOC finds the label or refuses it.
    wire.blob[i], wire.basic[i] = raw.ljust(40, b"\0"), dbr.DBR_STRING
    return ECA.NORMAL


def _encode_strings(wire: Wire, i: int, raw: bytes, capacity: int) -> int:
    if wire.basic[i] != dbr.DBR_STRING:
        return ECA.BADTYPE
    strings = unpack_strings(raw)
    if len(strings) > capacity:
        return ECA.BADCOUNT
    if any(len(s) >= 40 or b"\0" in s for s in strings):
        return ECA.BADSTR
    wire.blob[i] = b"".join(s.ljust(40, b"\0") for s in strings)
    wire.count[i] = len(strings)
    return ECA.NORMAL


def _encode_array(wire: Wire, i: int, source: NDArray[Any]) -> int:
    if wire.basic[i] == dbr.DBR_STRING:
        return ECA.BADTYPE
    out, fits = convert_array(source, np.dtype(_NATIVE[wire.basic[i]]))
    wire.blob[i], wire.count[i] = out.tobytes(), len(out)
    return ECA.NORMAL if bool(fits.all()) else ECA.NOCONVERT
