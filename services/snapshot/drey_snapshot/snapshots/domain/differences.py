"""Comparing two views PV by PV, without looking twice at pages that are equal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drey_core.compare import Comparison, DifferenceClass, Summary, compare, summarise_classes
from drey_core.directory import Directory
from drey_core.pages import PAGE_SHIFT
from drey_core.values import I8, KIND_NONE, Columns, Origin, State
from drey_snapshot.snapshots.domain.views import DirectoryView, ValuesView

F8 = NDArray[np.float64]
Mask = NDArray[np.bool_]
Tolerances = Callable[[I8], tuple[F8, F8, F8, F8]]
"""Setpoint absolute and relative, readback absolute and relative of PVs by number."""
SAME = (DifferenceClass.EQUAL, DifferenceClass.WITHIN_TOLERANCE)


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: its view, and the row in it of each PV compared; -1 where it has none."""

    view: ValuesView
    rows: I8
    setpoint: Columns
    readback: Columns

    @property
    def directory(self) -> Directory:
        """The directory of the view."""
        return self.view.where.directory

    @property
    def by_monitor(self) -> int:
        """Channels of which a monitor told the value: a record's dead band may hide a change."""
        return sum(
            int(np.count_nonzero((c.origin == Origin.MONITOR) & (c.state != State.ABSENT)))
            for c in (self.setpoint, self.readback)
        )


@dataclass(frozen=True, slots=True)
class Differences:
    """The comparison of n PVs, ordered by number."""

    numbers: I8
    reference: Side
    other: Side
    setpoint: Comparison
    readback: Comparison
    summary: Summary


def find_differences(
    reference: ValuesView,
    other: ValuesView,
    tolerances: Tolerances,
    *,
    numbers: I8 | None = None,
    exhaustive: bool = False,
) -> Differences:
    """Compare the PVs that either has, or those of `numbers` (ascending).

    Unless `exhaustive`, channels in pages that are equal get a class and nothing else (no delta).
    """
    numbers, sides = _align_sides(reference, other, numbers)
    here, there = sides
    limits = tolerances(numbers)
    equal_pages = _equal_pages(reference, other) if not exhaustive else np.zeros(0, np.int64)
    labels = reference.where.metadata is not other.where.metadata
    setpoint = _compare_sides(
        here.setpoint, there.setpoint, limits[0], limits[1], equal_pages, sides, labels
    )
    readback = _compare_sides(
        here.readback, there.readback, limits[2], limits[3], equal_pages, sides, labels
    )
    every = np.ones(len(numbers), bool)
    summary = summarise_classes(setpoint.cls, every, readback.cls, every)
    return Differences(numbers, here, there, setpoint, readback, summary)


def _align_sides(
    reference: ValuesView, other: ValuesView, numbers: I8 | None
) -> tuple[I8, tuple[Side, Side]]:
    a, b = reference.where.directory, other.where.directory
    if numbers is None:
        if a is b or np.array_equal(a.pv_number, b.pv_number):
            rows = np.arange(len(a))
            return a.pv_number, (
                Side(reference, rows, reference.setpoint, reference.readback),
                Side(other, rows, other.setpoint, other.readback),
            )
        numbers = np.union1d(a.pv_number, b.pv_number)
    return numbers, (_build_side(reference, numbers), _build_side(other, numbers))


def _build_side(view: ValuesView, numbers: I8) -> Side:
    rows = view.where.directory.rows_of(numbers)
    return Side(view, rows, _rows_of(view.setpoint, rows), _rows_of(view.readback, rows))


def _rows_of(columns: Columns, rows: I8) -> Columns:
    lacking = rows < 0
    if not lacking.any():
        return columns.take_rows(rows)
    if len(columns) == 0:
        return Columns.empty_columns(len(rows))
    out = columns.take_rows(np.maximum(rows, 0))
    for column in (out.key, out.kind, out.state, out.data):
        column[lacking] = 0
    return out


def _equal_pages(reference: ValuesView, other: ValuesView) -> I8:
    """Numbers of the pages whose values, and whose metadata, are equal in both; ascending."""
    numbers, index, there = np.intersect1d(
        reference.pages.numbers, other.pages.numbers, assume_unique=True, return_indices=True
    )
    if reference.hashes and other.hashes:
        a, b = reference.hashes, other.hashes
        equal = np.fromiter(
            (a[i] == b[j] for i, j in zip(index.tolist(), there.tolist(), strict=True)),
            bool,
            len(index),
        )
    else:
        equal = _equal_bytes(reference, other, index, there)
    if reference.where.metadata is not other.where.metadata:
        reference_hashes, also = reference.where.metadata_hashes, other.where.metadata_hashes
        equal &= np.fromiter(
            (reference_hashes.get(n) == also.get(n) for n in numbers.tolist()), bool, len(numbers)
        )
    same: I8 = numbers[equal]
    return same


def _equal_bytes(reference: ValuesView, other: ValuesView, page_index: I8, there: I8) -> Mask:
    equal: Mask = (_page_words(reference, page_index) == _page_words(other, there)).all(axis=1)
    heaps, others = reference.pages.heaps, other.pages.heaps
    for i in np.flatnonzero(equal).tolist():
        equal[i] = heaps[int(page_index[i])] == others[int(there[i])]
    return equal


def _page_words(view: ValuesView, page_index: I8) -> NDArray[np.uint64]:
    """The fixed columns of some of its pages (ascending), shape (n, words of a page)."""
    values = view.pages.values
    words: NDArray[np.uint64] = values.view(np.uint64).reshape(len(values), -1)
    return words if len(page_index) == len(values) else words[page_index]


def _compare_sides(
    here: Columns,
    there: Columns,
    absolute: F8,
    relative: F8,
    equal_pages: I8,
    sides: tuple[Side, Side],
    labels: bool,
) -> Comparison:
    skip = _in_pages(here.key, equal_pages) & (here.key == there.key)
    if not skip.any():
        return _compare_all(here, there, absolute, relative, sides, labels)
    out = Comparison.empty_comparison(len(here))
    whole = (here.state == State.CONNECTED) & (here.kind != KIND_NONE)
    same = np.where(whole, DifferenceClass.EQUAL, DifferenceClass.DISCONNECTED_IN_BOTH)
    out.cls[:] = np.where(here.state == State.ABSENT, DifferenceClass.UNSPECIFIED, same)
    rest = np.flatnonzero(~skip)
    if len(rest):
        part = _compare_all(
            here.take_rows(rest),
            there.take_rows(rest),
            absolute[rest],
            relative[rest],
            sides,
            labels,
        )
        for column in Comparison.__slots__:
            getattr(out, column)[rest] = getattr(part, column)
    return out


def _in_pages(channels: I8, pages: I8) -> Mask:
    """Which channels lie in one of the pages (ascending); channel 0 is none."""
    if len(pages) == 0:
        return np.zeros(len(channels), bool)
    table = np.zeros(int(max(channels.max(initial=0) >> PAGE_SHIFT, pages[-1])) + 1, bool)
    table[pages] = True
    mask: Mask = table[channels >> PAGE_SHIFT] & (channels != 0)
    return mask


def _compare_all(
    here: Columns,
    there: Columns,
    absolute: F8,
    relative: F8,
    sides: tuple[Side, Side],
    labels: bool,
) -> Comparison:
    if not labels:
        return compare(here, there, absolute, relative)
    return compare(
        here,
        there,
        absolute,
        relative,
        reference_labels=_enum_labels(sides[0].view.where, here),
        other_labels=_enum_labels(sides[1].view.where, there),
    )


def _enum_labels(where: DirectoryView, columns: Columns) -> Callable[[int], tuple[bytes, ...]]:
    return lambda row: where.metadata.labels(int(columns.key[row]))


# --- tolerances ---------------------------------------------------------------------------------


def by_directory(first: Directory, second: Directory | None = None) -> Tolerances:
    """Those of `first`; of PVs that it lacks, those of `second`; otherwise none."""

    def look_up(numbers: I8) -> tuple[F8, F8, F8, F8]:
        if len(numbers) == len(first) and np.array_equal(numbers, first.pv_number):
            return *first.setpoint_tolerance, *first.readback_tolerance
        out = tuple(np.zeros(len(numbers)) for _ in range(4))
        for directory in (second, first):
            if directory is None or len(directory) == 0:
                continue
            rows = directory.rows_of(numbers)
            has = rows >= 0
            columns = (*directory.setpoint_tolerance, *directory.readback_tolerance)
            for target, column in zip(out, columns, strict=True):
                target[has] = column[rows[has]]
        return out[0], out[1], out[2], out[3]

    return look_up


def constant_tolerances(setpoint: tuple[float, float], readback: tuple[float, float]) -> Tolerances:
    """The same (absolute, relative) for all setpoints and for all readbacks."""

    def look_up(numbers: I8) -> tuple[F8, F8, F8, F8]:
        n = len(numbers)
        a, b, c, d = (np.full(n, x) for x in (*setpoint, *readback))
        return a, b, c, d

    return look_up
