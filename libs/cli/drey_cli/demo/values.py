"""Stored values beside values read by an independent client: are they the same?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drey.common.v1.value_pb2 import Value

_SCALARS = frozenset(
    f"{kind}_value"
    for kind in (
        *("float64", "float32", "int64", "int32", "int16", "int8"),
        *("uint64", "uint32", "uint16", "uint8", "bool", "string"),
    )
)


def plain(value: Value) -> Any:
    """The data of a value as numbers, text and lists; None where there is none."""
    which = value.WhichOneof("data")
    if which is None:
        return None
    data = getattr(value, which)
    if which in _SCALARS:
        return data
    if which == "raw_string_value":
        return data.decode(errors="replace")
    if which == "enum_value":
        return data.index
    if which == "uint8_array":
        return list(data)
    if which == "string_array":
        return list(data.elements) or [e.decode(errors="replace") for e in data.raw_elements]
    return list(data.elements)


def same(stored: Any, read: Any, absolute: float, relative: float) -> bool:
    """Whether `read` is `stored` within tolerance, element by element; NaN is NaN."""
    if isinstance(stored, list) or isinstance(read, list):
        left = stored if isinstance(stored, list) else [stored]
        right = read if isinstance(read, list) else [read]
        return len(left) == len(right) and all(
            same(a, b, absolute, relative) for a, b in zip(left, right, strict=True)
        )
    if isinstance(stored, str) or isinstance(read, str):
        return bool(stored == read)
    if math.isnan(stored) or math.isnan(read):
        return math.isnan(stored) and math.isnan(read)
    return bool(stored == read) or abs(stored - read) <= absolute + relative * abs(stored)
