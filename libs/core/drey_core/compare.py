"""Comparing two sets of values channel by channel: a class each, never a mere boolean.

What is equal: numbers that are the same number (-0.0 and 0.0, an int32 5 and a float64 5.0, any
two NaNs); strings byte for byte; enums by index, or by label where the labels have moved. Numbers
have the tolerance; strings, enums and everything whose type changed have none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from drey_core.tolerance import F8, Mask, NumberDifference, number_difference
from drey_core.values import (
    ARRAY,
    ELEMENT_DTYPE,
    I8,
    U1,
    U8,
    Columns,
    Kind,
    State,
    as_float64,
    heap_mask,
    numeric_mask,
    unpack_strings,
)


class DifferenceClass(IntEnum):
    """How one channel compares; the numbers of `drey.snapshot.v1.DifferenceClass`."""

    UNSPECIFIED = 0
    """Neither side has the channel."""
    EQUAL = 1
    WITHIN_TOLERANCE = 2
    DIFFERENT = 3
    ONLY_IN_REFERENCE = 4
    ONLY_IN_OTHER = 5
    DISCONNECTED_IN_REFERENCE = 6
    DISCONNECTED_IN_OTHER = 7
    DISCONNECTED_IN_BOTH = 8
    TYPE_CHANGED = 9
    NOT_COMPARABLE = 10


CLASSES = len(DifferenceClass)

RowLabels = Callable[[int], "tuple[bytes, ...] | None"] | Mapping[int, "tuple[bytes, ...]"]
"""Enum labels of a row by its index; None where they are not known. Asked for enum rows only."""

_LabelsOf = Callable[[int], "tuple[bytes, ...] | None"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Result of a comparison of n rows; all arrays of shape (n,).

    `cls`: `DifferenceClass`. `delta`: other - reference; of an array, that of the largest size.
    `relative`: |delta| / |reference|. `deviation`: |delta| in tolerances, above 1 where different,
    infinite where the tolerance is 0; of an array, the largest. NaN in these three means that
    there is none. `elements_different`: of arrays, how many elements differ by more than the
    tolerance, those that one side lacks included. `largest_at`: of arrays, where `delta` is.
    `labels_moved`: compared by enum label.
    """

    cls: U1
    delta: F8
    relative: F8
    deviation: F8
    elements_different: I8
    largest_at: I8
    labels_moved: Mask

    def __len__(self) -> int:
        return len(self.cls)

    @classmethod
    def empty_comparison(cls, n: int) -> Comparison:
        """n rows of class UNSPECIFIED without differences."""
        return cls(
            np.zeros(n, np.uint8),
            np.full(n, np.nan),
            np.full(n, np.nan),
            np.full(n, np.nan),
            np.zeros(n, np.int64),
            np.zeros(n, np.int64),
            np.zeros(n, bool),
        )


def compare(
    reference: Columns,
    other: Columns,
    absolute: F8,
    relative: F8,
    *,
    reference_labels: RowLabels | None = None,
    other_labels: RowLabels | None = None,
) -> Comparison:
    """Compare row i of `reference` with row i of `other` under tolerance i.

    Keys are not looked at. `absolute` and `relative` have shape (n,), finite and not negative.
    """
    out = Comparison.empty_comparison(len(reference))
    both = _classify_presence(reference, other, out.cls)
    numeric = both & numeric_mask(reference.kind) & numeric_mask(other.kind)
    _compare_numbers(reference, other, absolute, relative, numeric, out)
    if not (both & ~numeric).any():
        return out
    scalar = both & ~heap_mask(reference.kind) & ~heap_mask(other.kind)
    enum = both & (reference.kind == Kind.ENUM) & (other.kind == Kind.ENUM)
    _compare_enums(
        reference, other, enum, out, _label_getter(reference_labels), _label_getter(other_labels)
    )
    out.cls[scalar & ~numeric & ~enum] = DifferenceClass.TYPE_CHANGED
    heap = np.flatnonzero(both & ~scalar)
    if len(heap):
        labels = _label_getter(reference_labels), _label_getter(other_labels)
        _compare_heap(_HeapSides(reference, other, absolute, relative, labels), heap, out)
    return out


def _classify_presence(reference: Columns, other: Columns, cls: U1) -> Mask:
    """Write the classes of rows that lack a value on a side; which rows have both."""
    missing_reference = (reference.state != State.CONNECTED) | (reference.kind == Kind.NONE)
    missing_other = (other.state != State.CONNECTED) | (other.kind == Kind.NONE)
    missing = missing_reference | missing_other
    if missing.any():
        rows = np.flatnonzero(missing)
        absent_reference = reference.state[rows] == State.ABSENT
        absent_other = other.state[rows] == State.ABSENT
        here, there = missing_reference[rows], missing_other[rows]
        cls[rows] = np.select(
            [
                absent_reference & absent_other,
                absent_reference,
                absent_other,
                here & there,
                here,
            ],
            [
                DifferenceClass.UNSPECIFIED,
                DifferenceClass.ONLY_IN_OTHER,
                DifferenceClass.ONLY_IN_REFERENCE,
                DifferenceClass.DISCONNECTED_IN_BOTH,
                DifferenceClass.DISCONNECTED_IN_REFERENCE,
            ],
            DifferenceClass.DISCONNECTED_IN_OTHER,
        )
    both: Mask = ~missing
    return both


# --- scalars ------------------------------------------------------------------------------------


def _compare_numbers(
    reference: Columns, other: Columns, absolute: F8, relative: F8, numeric: Mask, out: Comparison
) -> None:
    same = numeric & (reference.data == other.data) & (reference.kind == other.kind)
    _write_same(reference, np.flatnonzero(same), out)
    unequal_rows = np.flatnonzero(numeric & ~same)
    if len(unequal_rows) == 0:
        return
    rows: I8 | slice = unequal_rows if len(unequal_rows) < len(out) else slice(None)
    difference = number_difference(
        reference.kind[rows],
        reference.data[rows],
        other.kind[rows],
        other.data[rows],
        absolute[rows],
        relative[rows],
    )
    out.cls[rows] = _difference_classes(difference)
    out.delta[rows] = difference.delta
    out.relative[rows] = difference.relative
    out.deviation[rows] = difference.deviation


def _write_same(reference: Columns, rows: I8, out: Comparison) -> None:
    """Write numbers that have the same bits on both sides."""
    out.cls[rows] = DifferenceClass.EQUAL
    out.deviation[rows] = 0.0
    values = as_float64(reference.kind[rows], reference.data[rows])
    out.delta[rows] = np.where(np.isnan(values), np.nan, 0.0)
    out.relative[rows] = np.where(np.isfinite(values) & (values != 0), 0.0, np.nan)


def _difference_classes(difference: NumberDifference) -> U1:
    """EQUAL is 1, WITHIN_TOLERANCE 2, DIFFERENT 3, and what is equal is also within."""
    different = np.uint8(DifferenceClass.DIFFERENT)
    cls: U1 = different - difference.within.view(np.uint8) - difference.equal.view(np.uint8)
    return cls


def _label_getter(labels: RowLabels | None) -> _LabelsOf | None:
    return labels.get if isinstance(labels, Mapping) else labels


def _compare_enums(
    reference: Columns,
    other: Columns,
    enum: Mask,
    out: Comparison,
    reference_labels: _LabelsOf | None,
    other_labels: _LabelsOf | None,
) -> None:
    equal = reference.data == other.data
    out.cls[enum] = np.where(
        equal[enum], np.uint8(DifferenceClass.EQUAL), np.uint8(DifferenceClass.DIFFERENT)
    )
    if reference_labels is None or other_labels is None:
        return
    rows = np.flatnonzero(enum).tolist()
    old, new = map(reference_labels, rows), map(other_labels, rows)
    for row, here, there in zip(rows, old, new, strict=True):
        if here is there or not here or not there or here == there:
            continue
        out.labels_moved[row] = True
        a, b = int(reference.data[row]), int(other.data[row])
        out.cls[row] = _by_label(here, a, there, b)


def _by_label(here: tuple[bytes, ...], a: int, there: tuple[bytes, ...], b: int) -> int:
    if a >= len(here) or b >= len(there):
        return DifferenceClass.NOT_COMPARABLE
    return DifferenceClass.EQUAL if here[a] == there[b] else DifferenceClass.DIFFERENT


# --- strings and arrays -------------------------------------------------------------------------


class _HeapSides(NamedTuple):
    """Two columns of n rows whose strings and arrays are compared, and how."""

    reference: Columns
    other: Columns
    absolute: F8
    relative: F8
    labels: tuple[_LabelsOf | None, _LabelsOf | None]


def _compare_heap(sides: _HeapSides, rows: I8, out: Comparison) -> None:
    reference, other = sides.reference, sides.other
    same_kind = reference.kind[rows] == other.kind[rows]
    enums = reference.kind[rows] == Kind.ENUM | ARRAY
    if reference.heap is other.heap or reference.heap == other.heap:
        same = same_kind & (reference.data[rows] == other.data[rows]) & ~enums
        out.cls[rows[same]] = DifferenceClass.EQUAL
        rows, same_kind, enums = rows[~same], same_kind[~same], enums[~same]
    for row, alike, enum in zip(rows.tolist(), same_kind.tolist(), enums.tolist(), strict=True):
        if alike and not enum and reference.heap_bytes(row) == other.heap_bytes(row):
            out.cls[row] = DifferenceClass.EQUAL
        else:
            _compare_heap_row(sides, row, out)


def _compare_heap_row(sides: _HeapSides, row: int, out: Comparison) -> None:
    reference, other = sides.reference, sides.other
    kinds = int(reference.kind[row]), int(other.kind[row])
    families = _kind_family(kinds[0]), _kind_family(kinds[1])
    if families[0] != families[1] or not shapes_agree(reference, other, row):
        out.cls[row] = DifferenceClass.TYPE_CHANGED
    elif families[0] == Kind.STRING:
        _write_exact(out, row, _string_elements(reference, row), _string_elements(other, row))
    elif families[0] == Kind.ENUM:
        _compare_enum_arrays(reference, other, row, out, sides.labels)
    else:
        _compare_arrays(reference, other, sides.absolute[row], sides.relative[row], row, out)


def _kind_family(kind: int) -> int:
    element = kind & ~ARRAY
    return element if element in (Kind.STRING, Kind.ENUM) else int(Kind.FLOAT64)


def shapes_agree(a: Columns, b: Columns, row: int) -> bool:
    """Whether two values are both scalars, both arrays, or a scalar and an array of one element.

    Who compares and who writes a stored value back ask the same.
    """
    return _has_label(a, row, int(b.kind[row])) and _has_label(b, row, int(a.kind[row]))


def _has_label(columns: Columns, row: int, other_kind: int) -> bool:
    """An array can face a scalar only when it has one element."""
    kind = int(columns.kind[row])
    if not kind & ARRAY or other_kind & ARRAY:
        return True
    if kind & ~ARRAY == Kind.STRING:
        return len(unpack_strings(columns.heap_bytes(row))) == 1
    return len(columns.heap_bytes(row)) == ELEMENT_DTYPE[kind & ~ARRAY].itemsize


def _string_elements(columns: Columns, row: int) -> list[bytes]:
    raw = columns.heap_bytes(row)
    return unpack_strings(raw) if int(columns.kind[row]) & ARRAY else [raw]


def _write_exact(out: Comparison, row: int, a: list[Any], b: list[Any]) -> None:
    """The class of two lists of things that are equal or not."""
    unequal = [i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y]
    count = len(unequal) + abs(len(a) - len(b))
    out.cls[row] = DifferenceClass.DIFFERENT if count else DifferenceClass.EQUAL
    out.elements_different[row] = count
    if unequal:
        out.largest_at[row] = unequal[0]


def _compare_enum_arrays(
    reference: Columns,
    other: Columns,
    row: int,
    out: Comparison,
    labels: tuple[_LabelsOf | None, _LabelsOf | None],
) -> None:
    a, b = (_value_bits(columns, row)[1].tolist() for columns in (reference, other))
    here = labels[0](row) if labels[0] is not None else None
    there = labels[1](row) if labels[1] is not None else None
    if here and there and here != there:
        out.labels_moved[row] = True
        if max(a, default=-1) >= len(here) or max(b, default=-1) >= len(there):
            out.cls[row] = DifferenceClass.NOT_COMPARABLE
            return
        a, b = [here[i] for i in a], [there[i] for i in b]
    _write_exact(out, row, a, b)


def _value_bits(columns: Columns, row: int) -> tuple[U1, U8]:
    """(kinds, bits) of the elements of one row, as numeric scalars have them."""
    kind = int(columns.kind[row])
    if not kind & ARRAY:
        return columns.kind[row : row + 1], columns.data[row : row + 1]
    element = kind & ~ARRAY
    values: NDArray[Any] = np.frombuffer(columns.heap_bytes(row), ELEMENT_DTYPE[element])
    if element == Kind.FLOAT32:
        bits = values.view(np.uint32).astype(np.uint64)
    elif element == Kind.FLOAT64:
        bits = values.view(np.uint64)
    else:
        bits = values.astype(np.int64).view(np.uint64) if values.dtype.kind == "i" else values
    return np.full(len(bits), element, np.uint8), bits.astype(np.uint64)


def _compare_arrays(
    reference: Columns, other: Columns, absolute: float, relative: float, row: int, out: Comparison
) -> None:
    (a_kind, a), (b_kind, b) = _value_bits(reference, row), _value_bits(other, row)
    common = min(len(a), len(b))
    lacking = max(len(a), len(b)) - common
    d = number_difference(
        a_kind[:common],
        a[:common],
        b_kind[:common],
        b[:common],
        np.full(common, absolute),
        np.full(common, relative),
    )
    beyond = int((~d.within).sum()) + lacking
    out.elements_different[row] = beyond
    if common:
        size = np.abs(d.delta)
        # NaN against a number ranks above any difference, NaN against NaN is none.
        size = np.where(d.equal, 0.0, np.where(np.isnan(size), np.inf, size))
        index = int(size.argmax())
        out.largest_at[row] = index
        out.delta[row], out.relative[row] = d.delta[index], d.relative[index]
        out.deviation[row] = np.where(np.isnan(d.deviation), np.inf, d.deviation).max()
    if beyond:
        out.cls[row] = DifferenceClass.DIFFERENT
    elif d.equal.all():
        out.cls[row] = DifferenceClass.EQUAL
    else:
        out.cls[row] = DifferenceClass.WITHIN_TOLERANCE


# --- summary ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts as in `ComparisonSummary`. `setpoints[c]` and `readbacks[c]` by `DifferenceClass`."""

    pvs: int
    pvs_same: int
    pvs_different: int
    pvs_unknown: int
    setpoints: tuple[int, ...]
    readbacks: tuple[int, ...]


def summarise_classes(
    cls_setpoint: U1, has_setpoint: Mask, cls_readback: U1, has_readback: Mask
) -> Summary:
    """Count PVs and channels by class; all shapes (n,), one row a PV.

    A channel counts where `has_` says so and its class is not UNSPECIFIED. A PV is the same when
    all its channels are EQUAL or WITHIN_TOLERANCE, different when any is DIFFERENT, and unknown
    otherwise; without any channel that counts it is not a PV of the comparison.
    """
    setpoint = np.where(has_setpoint, cls_setpoint, 0)
    readback = np.where(has_readback, cls_readback, 0)
    counted = (setpoint != 0) | (readback != 0)
    different = (setpoint == DifferenceClass.DIFFERENT) | (readback == DifferenceClass.DIFFERENT)
    same = counted
    same &= setpoint <= DifferenceClass.WITHIN_TOLERANCE
    same &= readback <= DifferenceClass.WITHIN_TOLERANCE
    pvs = int(((setpoint != 0) | (readback != 0)).sum())
    pvs_same, pvs_different = int(same.sum()), int(different.sum())

    def count_classes(cls: U1) -> tuple[int, ...]:
        counts = np.bincount(cls, minlength=CLASSES).tolist()
        return (0, *counts[1:])

    return Summary(
        pvs,
        pvs_same,
        pvs_different,
        pvs - pvs_same - pvs_different,
        count_classes(setpoint),
        count_classes(readback),
    )
