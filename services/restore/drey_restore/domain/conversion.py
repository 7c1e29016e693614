"""A stored value in the type that its channel has today, or the reason why it cannot be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from drey_core.compare import shapes_agree
from drey_core.values import (
    ARRAY,
    ELEMENT_DTYPE,
    I8,
    U1,
    Columns,
    Kind,
    bits_scalar,
    decode_value,
    encode_value,
    heap_mask,
    heap_ref,
    pack_strings,
    unpack_strings,
)
from drey_restore.domain.items import Labels
from drey_restore.domain.kinds import Skip

_ITEM_BYTES = np.ones(256, np.int64)
for _kind, _dtype in ELEMENT_DTYPE.items():
    _ITEM_BYTES[_kind | ARRAY] = _dtype.itemsize

_FLOATS = (Kind.FLOAT32, Kind.FLOAT64)
_STRING_ARRAY = int(Kind.STRING) | ARRAY


@dataclass(frozen=True)
class Converted:
    """Targets in the channels' types; `problem[i]` (`Skip`) says why row i has none."""

    target: Columns
    problem: U1
    warnings: dict[int, tuple[str, ...]]


class _Refused(Exception):
    def __init__(self, reason: Skip) -> None:
        self.reason = reason


def convert_values(
    stored: Columns,
    live: Columns,
    live_count: I8,
    rows: I8,
    stored_labels: Mapping[int, Labels],
    live_labels: Callable[[int], Labels],
) -> Converted:
    """Convert the given rows of `stored` (n); the others keep their value and have no problem.

    `live` (n) has today's types, `live_count` (shape (n,)) the greatest number of elements.
    Numbers go to another type only where that holds them exactly; an enum goes by its label where
    both lists of labels are known and differ; a scalar and an array of one element are the same.
    """
    live_kind = live.kind
    problem = np.zeros(len(stored), np.uint8)
    data, kind = stored.data.copy(), stored.kind.copy()
    warnings: dict[int, tuple[str, ...]] = {}
    same = kind[rows] == live_kind[rows]
    _check_counts(stored, live_count, rows[same], problem)
    enums = rows[same & (kind[rows] == Kind.ENUM)]
    for row in enums.tolist():
        old, new = stored_labels.get(row, ()), live_labels(row)
        converted = by_label(int(data[row]), old, new)
        problem[row], data[row] = converted.problem, converted.index
        if converted.note:
            warnings[row] = (converted.note,)
    extra = bytearray()
    base = len(stored.heap)
    for row in rows[~same].tolist():
        try:
            bits = _retype_value(stored, live, row, int(live_count[row]))
        except _Refused as refused:
            problem[row] = refused.reason
            continue
        warnings[row] = (
            f"stored as {_kind_name(kind[row])}, written as {_kind_name(live_kind[row])}",
        )
        kind[row] = live_kind[row]
        if isinstance(bits, bytes):
            data[row] = heap_ref(base + len(extra), len(bits))
            extra += bits
        else:
            data[row] = bits
    target = replace(stored, kind=kind, data=data, heap=stored.heap + bytes(extra))
    return Converted(target, problem, warnings)


def _kind_name(kind: np.uint8) -> str:
    text = Kind(int(kind) & ~ARRAY).name.lower()
    return f"array of {text}" if int(kind) & ARRAY else text


@dataclass(frozen=True)
class ByLabel:
    """What is written for a stored enumeration, what to say of it, and why not (`Skip`)."""

    index: int
    note: str = ""
    problem: Skip = Skip.NONE


def by_label(index: int, old: Labels, new: Labels) -> ByLabel:
    """By the label that `index` had, where both lists are known and differ.

    An index that had no label is compared and written as an index, unless it has got one since.
    """
    if not old or not new or old == new:
        return ByLabel(index)
    label = old[index] if index < len(old) else b""
    now = new[index] if index < len(new) else b""
    if not label:
        if now:
            note = f"the stored index {index} had no label, and is {_quote_label(now)} today"
            return ByLabel(index, note, Skip.LABEL_GONE)
        return ByLabel(index, f"the stored index {index} has no label: compared as an index")
    places = [place for place, text in enumerate(new) if text == label]
    if not places:
        return ByLabel(
            index, f"today's labels have no {_quote_label(label)}, the stored one", Skip.LABEL_GONE
        )
    if len(places) > 1:
        several = " and ".join(map(str, places))
        note = f"the stored label {_quote_label(label)} stands at {several} today: ambiguous"
        return ByLabel(index, note, Skip.LABEL_GONE)
    if places[0] == index:
        return ByLabel(index)
    return ByLabel(places[0], f"enum index moved from {index} to {places[0]}")


def _quote_label(label: bytes) -> str:
    return f'"{label.decode(errors="replace")}"'


def _check_counts(stored: Columns, live_count: I8, rows: I8, problem: U1) -> None:
    arrays = rows[stored.kind[rows] & ARRAY != 0]
    lengths = (stored.data[arrays] >> np.uint64(32)).astype(np.int64)
    counts = lengths // _ITEM_BYTES[stored.kind[arrays]]
    for index in np.flatnonzero(stored.kind[arrays] == _STRING_ARRAY).tolist():
        counts[index] = len(unpack_strings(stored.heap_bytes(int(arrays[index]))))
    problem[arrays[counts > live_count[arrays]]] = Skip.COUNT_TOO_LARGE


def _retype_value(stored: Columns, live: Columns, row: int, count: int) -> int | bytes:
    """Heap bytes or bits of one value in the kind that the channel has today."""
    old, kind = int(stored.kind[row]), int(live.kind[row])
    if _kind_family(old) != _kind_family(kind):
        raise _Refused(Skip.TYPE_CHANGED)
    value = decode_value(old, int(stored.data[row]), stored.heap)
    if not shapes_agree(stored, live, row):
        longer = old & ARRAY and len(value) > 1
        raise _Refused(Skip.COUNT_TOO_LARGE if longer else Skip.TYPE_CHANGED)
    if not kind & ARRAY:
        return _exact_scalar(value[0] if old & ARRAY else value, kind)
    if not old & ARRAY:
        value = [value]
    if len(value) > count:
        raise _Refused(Skip.COUNT_TOO_LARGE)
    if kind == _STRING_ARRAY:
        return pack_strings(value)
    return _exact_array(np.asarray(value), kind)


def _kind_family(kind: int) -> int:
    element = kind & ~ARRAY
    return element if element in (Kind.NONE, Kind.STRING, Kind.ENUM) else int(Kind.FLOAT64)


def _exact_scalar(value: object, kind: int) -> int | bytes:
    if kind == Kind.STRING:
        return encode_value(value, kind)[1]
    number = value.item() if isinstance(value, np.generic) else value
    try:
        if isinstance(number, float) and kind not in _FLOATS and not number.is_integer():
            raise _Refused(Skip.TYPE_CHANGED)
        bits = encode_value(number, kind)[1]
    except (OverflowError, ValueError, TypeError) as error:
        raise _Refused(Skip.TYPE_CHANGED) from error
    assert isinstance(bits, int)
    back = bits_scalar(kind, bits)
    if back != number and number == number:  # noqa: PLR0124  NaN stays NaN in any float
        raise _Refused(Skip.TYPE_CHANGED)
    return bits


def _exact_array(value: NDArray[np.generic], kind: int) -> bytes:
    dtype = ELEMENT_DTYPE[kind & ~ARRAY]
    with np.errstate(invalid="ignore", over="ignore"):
        out = value.astype(dtype)
        whole = [x.item() for x in value]
        kept = all(
            a == b or (a != a and b != b)  # noqa: PLR0124  NaN
            for a, b in zip(whole, [x.item() for x in out], strict=True)
        )
    if not kept:
        raise _Refused(Skip.TYPE_CHANGED)
    return out.tobytes()


def in_heap(columns: Columns, rows: I8) -> I8:
    """Those of `rows` whose value lies in the heap."""
    return rows[heap_mask(columns.kind[rows])]
