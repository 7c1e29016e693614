"""`drey.common.v1.Value` from and to columns, one at a time; for the edge, not for hot paths.

Both ways go over the serialised form: a Python float cannot hold the payload of a float32 NaN, so
bits are taken from the wire and put there.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from drey.common.v1 import value_pb2
from drey_core.errors import InvalidArgument, Unimplemented
from drey_core.values import ARRAY, ELEMENT_DTYPE, Kind, pack_strings

_SCALARS: dict[str, int] = {
    f"{kind.name.lower()}_value": int(kind)
    for kind in Kind
    if kind not in (Kind.NONE, Kind.ENUM, Kind.STRING)
}
_ARRAYS: dict[str, int] = {
    f"{kind.name.lower()}_array": int(kind) for kind in Kind if kind != Kind.NONE
}
_NOT_BUILT = ("structure", "table", "nd_array")
_PACKED: dict[int, str] = {
    Kind.INT8: "<i4",
    Kind.INT16: "<i4",
    Kind.UINT16: "<u4",
    Kind.ENUM: "<u4",
}
"""Elements on the wire where they are wider than in the heap."""


def from_proto(value: value_pb2.Value) -> tuple[int, int | bytes]:
    """(kind, data bits or heap bytes) of the value that a message holds; (0, 0) for none.

    Raises `InvalidArgument` for a part or an extract of an array, for an error in the place of a
    value, for numbers beyond their type and for a string array that uses both of its lists;
    `Unimplemented` for structures, tables and arrays of several dimensions.
    """
    if value.HasField("part"):
        raise InvalidArgument("a part of an array is not a value", field="part")
    which = value.WhichOneof("data")
    if which is None:
        return int(Kind.NONE), 0
    if which == "unsent":
        raise InvalidArgument(f"not a value: {value.unsent.message}", field=which)
    if which == "extract":
        raise InvalidArgument("an extract of an array is not a value", field=which)
    if which in _NOT_BUILT:
        raise Unimplemented(
            f"{which}: such values are not built in this version; give a scalar or an array",
            field=which,
        )
    if which in _SCALARS:
        return _SCALARS[which], _scalar_bits(value, which)
    if which == "enum_value":
        index = value.enum_value.index
        _check_range(index, Kind.ENUM, which)
        return int(Kind.ENUM), index
    if which == "string_value":
        return int(Kind.STRING), value.string_value.encode()
    if which == "raw_string_value":
        return int(Kind.STRING), value.raw_string_value
    return _array_of(value, which)


def _scalar_bits(value: value_pb2.Value, which: str) -> int:
    kind, number = _SCALARS[which], getattr(value, which)
    if kind == Kind.FLOAT64:
        return int(np.float64(number).view(np.uint64))
    if kind == Kind.FLOAT32:
        return _float32_bits(value, number)
    _check_range(number, kind, which)
    return int(number) & 0xFFFF_FFFF_FFFF_FFFF


def _float32_bits(value: value_pb2.Value, number: float) -> int:
    if not math.isnan(number):
        return int(np.float32(number).view(np.uint32))
    bare = value_pb2.Value()
    bare.CopyFrom(value)
    for field, _ in value.ListFields():
        if field.name != "float32_value":
            bare.ClearField(field.name)  # type: ignore[arg-type]
    return int.from_bytes(bare.SerializeToString()[-4:], "little")


def _check_range(number: int, kind: int, field: str) -> None:
    if kind == Kind.BOOL:
        return
    info = np.iinfo(ELEMENT_DTYPE[kind])
    if not info.min <= number <= info.max:
        raise InvalidArgument(f"{number} does not fit {Kind(kind).name.lower()}", field=field)


def _array_of(value: value_pb2.Value, which: str) -> tuple[int, bytes]:
    kind, message = _ARRAYS[which], getattr(value, which)
    if kind == Kind.UINT8:
        return kind | ARRAY, message
    if kind == Kind.STRING:
        return kind | ARRAY, _string_array(message)
    elements = _element_array(message, kind)
    if kind not in (Kind.FLOAT32, Kind.FLOAT64) and len(elements):
        _check_range(int(elements.min()), kind, which)
        _check_range(int(elements.max()), kind, which)
    return kind | ARRAY, elements.astype(ELEMENT_DTYPE[kind], copy=False).tobytes()


def _element_array(message: Any, kind: int) -> np.ndarray[Any, np.dtype[Any]]:
    dtype = np.dtype(_PACKED.get(kind, ELEMENT_DTYPE[kind]))
    count = len(message.elements)
    if count == 0:
        return np.zeros(0, dtype)
    if kind == Kind.BOOL:
        return np.fromiter(message.elements, dtype, count)
    # The packed elements end the message, whatever length stands before them.
    raw = message.SerializeToString()
    return np.frombuffer(raw[len(raw) - count * dtype.itemsize :], dtype)


def _string_array(message: value_pb2.StringArray) -> bytes:
    if message.elements and message.raw_elements:
        raise InvalidArgument(
            "a string array has elements or raw_elements, not both", field="string_array"
        )
    return pack_strings([text.encode() for text in message.elements] or list(message.raw_elements))
